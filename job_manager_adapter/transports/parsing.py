"""Frames of pilots, checked at the door."""

from pydantic import ValidationError

from copilot_agent.protocol.errors import CopilotError, ErrorCode
from copilot_agent.protocol.frames import PilotFrame
from job_manager_adapter.api.problems import field_errors


def parse_frame(text: str) -> PilotFrame:
    """Raises CopilotError that names the first wrong field."""
    try:
        return PilotFrame.model_validate_json(text)
    except ValidationError as error:
        first = field_errors(error)[0]
        raise malformed(f"{first.field}: {first.message}") from error


def malformed(text: str) -> CopilotError:
    return CopilotError(text, code=ErrorCode.INVALID_REQUEST)
