"""Names that original agents are told: each says its attempt, and nobody can guess it."""

import hmac
import re
from base64 import urlsafe_b64encode

from job_manager_adapter.core.leases import Key

_JOB_ID = re.compile(r"(j-[0-9a-z]{20})\.([1-9][0-9]{0,6})\.([0-9a-f]{24})")


def attempt_named(directory: str) -> Key | None:
    """Whose inputs or outputs a directory of ours holds; None for one that is not ours."""
    match = _JOB_ID.fullmatch(directory.removeprefix("in-"))
    return (match[1], int(match[2])) if match else None


class Names:
    """Made from a key and nothing else, so every manager with the key knows all of them."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def job_id(self, agent: str, key: Key) -> str:
        """For the agent with this bare address: `<job>.<attempt>.<tag>`."""
        return f"{key[0]}.{key[1]}.{self._tag('job', agent, key)}"

    def attempt_of(self, agent: str, job_id: str) -> Key | None:
        """None where this agent was never told this id."""
        if (match := _JOB_ID.fullmatch(job_id)) is None:
            return None
        key = (match[1], int(match[2]))
        told = hmac.compare_digest(match[3], self._tag("job", agent, key))
        return key if told else None

    def input_dir(self, agent: str, key: Key) -> str:
        return f"in-{key[0]}.{key[1]}.{self._tag('inputs', agent, key)}"

    def secret(self, agent: str) -> str:
        """The agent's enrolment secret."""
        return urlsafe_b64encode(self.seed("secret", agent)).rstrip(b"=").decode()

    def seed(self, purpose: str, agent: str) -> bytes:
        """32 bytes, of which a private key can be made."""
        return hmac.digest(self._key, f"{purpose}\n{agent}".encode(), "sha256")

    def _tag(self, purpose: str, agent: str, key: Key) -> str:
        return self.seed(f"{purpose} {key[0]} {key[1]}", agent).hex()[:24]
