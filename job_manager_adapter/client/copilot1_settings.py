"""Who asks the components of Co-Pilot 1, and where: flags, then [copilot1] in the user's file."""

import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Self

from pydantic import AfterValidator, Field, SecretStr, ValidationError, model_validator

from copilot_agent.protocol.base import Strict
from copilot_agent.protocol.copilot1.fields import shaped
from copilot_agent.protocol.errors import CopilotError, ErrorCode, FieldError
from copilot_agent.protocol.words import dotted, in_words
from job_manager_adapter.client.settings import config_path, private_text, read_config

SECTION = "copilot1"
DEFAULT_PORT = 5222
ORIGINAL_ROOM = "pilots-lounge"
"""What the original's configuration files call it."""

_NAME, _HOST = r"[^\s@/\"&'<>:]{1,255}", r"[A-Za-z0-9][A-Za-z0-9.-]{0,252}"
_SERVER = rf"(?:{_HOST}|\[[0-9a-fA-F:]+\])(?::[0-9]{{1,5}})?"
Account = Annotated[str, shaped(rf"{_NAME}@{_HOST}", "an account, as in operator@copilot.example")]
RoomName = Annotated[
    str, shaped(rf"{_NAME}@{_HOST}", "a room, as in pilots-lounge@conference.copilot.example")
]
Nick = Annotated[str, shaped(r"[^\x00-\x1f\x7f/]{0,128}", "a name for the room")]
Place = Annotated[
    str,
    shaped(
        rf"(?:{_HOST}|\[[0-9a-fA-F:]+\])(?::[0-9]{{1,5}})?", "HOST:PORT, as in xmpp.example:5222"
    ),
]
Expanded = Annotated[Path, AfterValidator(Path.expanduser)]


class Copilot1Settings(Strict):
    jid: Account
    """The account to ask from; one of its own, no agent's and no manager's."""
    password: SecretStr | None = Field(None, min_length=1)
    password_file: Expanded | None = None
    server: Place = ""
    """Of the XMPP server; else the account's domain."""
    room: RoomName = ""
    """Else the original's, of the account's domain."""
    nick: Nick = ""
    ca: Expanded | None = None
    """Certificates that are trusted, instead of the system's."""
    insecure: bool = False
    """No certificate is checked, and without TLS the password goes in the clear."""

    @model_validator(mode="after")
    def _has_a_password(self) -> Self:
        if self.password is None and self.password_file is None:
            raise ValueError("a password is missing: give password_file (--password-file)")
        return self

    @property
    def domain(self) -> str:
        return self.jid.partition("@")[2]

    @property
    def address(self) -> tuple[str, int]:
        host, colon, port = self.server.rpartition(":")
        if not colon or self.server.endswith("]"):
            host, port = self.server or self.domain, str(DEFAULT_PORT)
        return host.strip("[]"), int(port)

    @property
    def chat_room(self) -> str:
        return self.room or f"{ORIGINAL_ROOM}@conference.{self.domain}"

    def secret(self) -> str:
        """Raises CopilotError where others can read the file with it."""
        if self.password_file is None:
            return self.password.get_secret_value() if self.password else ""
        if (text := private_text(self.password_file)) is None:
            raise CopilotError(
                f"no such file: {self.password_file}",
                remedy="write the password into it, mode 0600",
            )
        return text.strip("\r\n")

    def tls(self) -> ssl.SSLContext | None:
        """None without any; raises CopilotError for a file without certificates."""
        if self.insecure:
            return None
        try:
            return ssl.create_default_context(cafile=self.ca)
        except (OSError, ssl.SSLError) as error:
            raise CopilotError(
                f"{self.ca} holds no certificate: {error}", remedy="--ca wants a file in PEM"
            ) from error


def load_copilot1_settings(flags: Mapping[str, object]) -> Copilot1Settings:
    """A flag that is not None counts, then the file. Raises CopilotError that names the fields."""
    found = read_config(config_path()).get(SECTION, {})
    given = {name: value for name, value in flags.items() if value is not None}
    known = dict(found) if isinstance(found, dict) else {}
    if "password_file" in given:
        known.pop("password", None)
    try:
        return Copilot1Settings.model_validate({**known, **given})
    except ValidationError as error:
        raise CopilotError(
            "who asks, or where, is not clear",
            remedy=f"give the flags (--help), or write them under [{SECTION}] into {config_path()}",
            code=ErrorCode.INVALID_REQUEST,
            errors=tuple(
                FieldError(field=dotted(item["loc"]) or SECTION, message=in_words(item))
                for item in error.errors(include_url=False)
            ),
        ) from error
