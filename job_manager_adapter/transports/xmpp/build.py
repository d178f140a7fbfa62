"""The component as the settings want it."""

from pathlib import Path

from copilot_agent.protocol.base import split_host_port
from copilot_agent.protocol.errors import CopilotError, ErrorCode
from copilot_agent.xmpp.component import ComponentLogin, ComponentStream
from copilot_agent.xmpp.guard import Limits
from job_manager_adapter.settings import XmppSettings
from job_manager_adapter.transports.xmpp.component import PilotComponent
from job_manager_adapter.transports.xmpp.door import XmppDoor

LIMITS = Limits(stanza_bytes=1 << 20, depth=1 << 20, elements=1 << 20)
"""The server bounds what pilots send. Here a bound could only end the stream, and with it the
conversations of all."""


def build_component(settings: XmppSettings, door: XmppDoor) -> PilotComponent:
    """Raises CopilotError if the secret cannot be read."""
    login = component_login(settings)
    return PilotComponent(ComponentStream(login, LIMITS), settings.component, settings.domain, door)


def component_login(settings: XmppSettings) -> ComponentLogin:
    """Raises CopilotError if the secret cannot be read."""
    host, port = split_host_port(settings.listen)
    return ComponentLogin(settings.component, _secret(settings.secret_file), host, port)


def _secret(path: Path) -> str:
    try:
        secret = path.read_text("ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise _wrong(f"xmpp.secret_file: {path} cannot be read: {error}") from error
    if not secret:
        raise _wrong(f"xmpp.secret_file: {path} is empty")
    return secret


def _wrong(message: str) -> CopilotError:
    remedy = "put the component's secret of the XMPP server's configuration there"
    return CopilotError(message, remedy=remedy, code=ErrorCode.INVALID_REQUEST)
