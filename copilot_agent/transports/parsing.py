"""Frames as text."""

from pydantic import ValidationError

from copilot_agent.core.events import TransportTrouble
from copilot_agent.protocol.frames import ManagerFrame, PilotFrame
from copilot_agent.transports.base import TransportError


def frame_text(frame: PilotFrame) -> str:
    """Short JSON: what has its default value is left out, except for the version."""
    return f'{{"version":{frame.version},' + frame.model_dump_json(exclude_defaults=True)[1:]


def parse_frame(text: str | bytes) -> ManagerFrame:
    """Raises TransportError."""
    try:
        return ManagerFrame.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        message = f"the manager's frame is malformed: {where}: {first['msg']}"
        raise TransportError(TransportTrouble.MALFORMED, message) from error
