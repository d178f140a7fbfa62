"""Who a pilot is: its keys, its enrolment and its token."""

import base64
import hashlib
import logging
import os
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import TypeAdapter, ValidationError

from copilot_agent.core.events import TransportTrouble
from copilot_agent.protocol.base import PublicKey, Signature, Wire
from copilot_agent.protocol.capabilities import Capabilities
from copilot_agent.protocol.enrolment import (
    BearerToken,
    EnrolRequest,
    RenewRequest,
    Secret,
    enrolment_statement,
    renewal_statement,
)
from copilot_agent.protocol.frames import Policy
from copilot_agent.protocol.ids import PilotId
from copilot_agent.protocol.xmpp import XmppAddress
from copilot_agent.spool import write_private
from copilot_agent.transports.base import TransportError
from copilot_agent.transports.enrolment import EnrolmentClient, KeyUsedError

log = logging.getLogger(__name__)

_SECRET: TypeAdapter[str] = TypeAdapter(Secret)
KEEP_SECONDS = 60.0
"""A token with less left than this is renewed before it is used."""


def text_of(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")


class PrivateKey:
    """An Ed25519 key in a file of mode 0600: 32 raw bytes."""

    def __init__(self, raw: bytes) -> None:
        self._key = Ed25519PrivateKey.from_private_bytes(raw)
        self.public = text_of(self._key.public_key().public_bytes_raw())

    @classmethod
    def kept_in(cls, path: Path) -> "PrivateKey":
        """Makes one at the first time. Raises ValueError if the file holds something else."""
        try:
            raw = path.read_bytes()
        except FileNotFoundError:
            raw = os.urandom(32)
            write_private(path, raw)
        if len(raw) != 32:
            raise ValueError(f"{path} is no key: remove it, and the pilot enrols with a new one")
        return cls(raw)

    def sign(self, message: bytes) -> str:
        return text_of(self._key.sign(message))


class Voucher(Wire):
    """An enrolment secret, and a launcher's word for one pilot key."""

    secret: Secret
    launcher_key: PublicKey
    signature: Signature


Vouch = Callable[[str], Awaitable[Voucher]]
"""Has a launcher vouch for a pilot's public key."""


def own_launcher(key: PrivateKey, secret: str) -> Vouch:
    """Outside a virtual machine the agent is its own launcher. Raises ValueError."""

    async def vouch(pilot_key: str) -> Voucher:
        statement = enrolment_statement(hashlib.sha256(secret.encode()).hexdigest(), pilot_key)
        return Voucher(secret=secret, launcher_key=key.public, signature=key.sign(statement))

    return vouch


class Grant(Wire):
    """A pilot id and a token, as they are kept for an agent that is started again."""

    pilot: PilotId
    token: BearerToken
    valid_until: float
    """On this boot's monotonic clock."""
    policy: Policy | None = None
    xmpp: XmppAddress | None = None
    boot: str = ""


class Enroller:
    """Gets tokens: enrols once, then renews with the pilot's key."""

    def __init__(
        self,
        client: EnrolmentClient,
        vouch: Vouch,
        capabilities: Capabilities,
        directory: Path,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._vouch = vouch
        self._capabilities = capabilities
        self._clock = clock
        self._grant_file = directory / "pilot.json"
        self._grant = _read_grant(self._grant_file)
        self._key_file = directory / "pilot.key"
        self._key = PrivateKey.kept_in(self._key_file)

    @property
    def latest(self) -> Grant | None:
        """None before the enrolment."""
        return self._grant

    async def grant(self, renew: bool) -> Grant:
        """A token that is good for a while. Raises TransportError."""
        grant = self._grant
        if grant is None:
            return await self._enrol()
        if not renew and grant.valid_until - self._clock() > KEEP_SECONDS:
            return grant
        try:
            return await self._renew(grant)
        except TransportError as error:
            if error.trouble is not TransportTrouble.TOKEN:
                raise
            log.warning("the manager does not know this pilot any more; enrolling again")
            return await self._enrol()

    async def _enrol(self) -> Grant:
        voucher = await self._vouch(self._key.public)
        request = EnrolRequest(
            secret=voucher.secret,
            launcher_key=voucher.launcher_key,
            pilot_key=self._key.public,
            signature=voucher.signature,
            capabilities=self._capabilities,
        )
        try:
            reply = await self._client.enrol(request)
        except KeyUsedError:  # by an earlier boot: the next try is with another one
            self._key_file.unlink(missing_ok=True)
            self._key = PrivateKey.kept_in(self._key_file)
            raise
        log.info("enrolled as %s on host %s", reply.pilot, reply.host, extra={"pilot": reply.pilot})
        valid = reply.token_expires - reply.server_time
        return self._keep(reply.pilot, reply.access_token, valid, reply.policy, reply.xmpp)

    async def _renew(self, grant: Grant) -> Grant:
        challenge = await self._client.challenge(grant.pilot)
        signature = self._key.sign(renewal_statement(grant.pilot, challenge.nonce))
        reply = await self._client.renew(
            RenewRequest(pilot=grant.pilot, nonce=challenge.nonce, signature=signature)
        )
        valid = reply.token_expires - reply.server_time
        policy = reply.policy or grant.policy
        return self._keep(grant.pilot, reply.access_token, valid, policy, reply.xmpp)

    def _keep(
        self,
        pilot: str,
        token: str,
        valid: float,
        policy: Policy | None,
        xmpp: XmppAddress | None,
    ) -> Grant:
        grant = Grant(
            pilot=pilot,
            token=token,
            valid_until=self._clock() + valid,
            policy=policy,
            xmpp=xmpp,
            boot=boot_id(),
        )
        self._grant = grant
        write_private(self._grant_file, grant.model_dump_json().encode())
        return grant


def boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def _read_grant(path: Path) -> Grant | None:
    """What an earlier agent of this boot has left: then this is the same pilot."""
    try:
        grant = Grant.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError:
        log.warning("%s is unreadable; enrolling again", path)
        return None
    return grant if grant.boot == boot_id() else None


def read_secret(path: Path | None) -> str:
    """The enrolment secret from a file or from COPILOT_ENROLMENT. Raises ValueError."""
    if path is None:
        secret = os.environ.get("COPILOT_ENROLMENT", "").strip()
        where = "the variable COPILOT_ENROLMENT"
    else:
        try:
            secret = path.read_text().strip()
        except OSError as error:
            raise ValueError(f"cannot read the enrolment secret: {error}") from error
        where = str(path)
        if path.stat().st_mode & 0o077:
            log.warning("%s may be read by others: chmod 600 is better", path)
    try:
        return _SECRET.validate_python(secret)
    except ValidationError:
        raise ValueError(
            f"{where} holds no enrolment secret (43 letters, digits, - or _); "
            "an operator makes one with: copilot-manager enrolment create"
        ) from None
