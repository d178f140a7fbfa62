"""The one error of this package."""

from pydantic import ValidationError

from copilot_agent.protocol.errors import CopilotError, ErrorCode, FieldError
from copilot_agent.protocol.words import dotted, in_words


class StanzaError(CopilotError):
    """Something that came, or was to go, over XMPP is refused.

    The message is `field: what is wrong`, stays the same for the same mistake, and never repeats
    what came.
    """

    code = ErrorCode.INVALID_REQUEST


def refused(field: str, words: str) -> StanzaError:
    """`words` go on after the field's name, as in "jobID: is missing"."""
    field = field[:500]
    return StanzaError(f"{field}: {words}", errors=(FieldError(field=field, message=words),))


def refusal_of(error: ValidationError) -> StanzaError:
    """Names the first field that pydantic refused."""
    first = error.errors(include_url=False, include_input=False)[0]
    nested = first["type"] == "model_type"
    words = "must hold named values" if nested else in_words(first)
    return refused(dotted(first["loc"]) or "stanza", words)
