"""Cursors of pages."""

from copilot_agent.protocol.errors import FieldError
from job_manager_adapter.services.errors import InvalidError


def number(cursor: str | None) -> int | None:
    """Raises InvalidError for a cursor that is not ours."""
    if cursor is None:
        return None
    if not (cursor.isascii() and cursor.isdigit() and len(cursor) < 19):
        raise InvalidError(
            "the cursor is not one of ours",
            remedy="use `next_cursor` of the page before",
            errors=(FieldError(field="cursor", message="not a cursor of this list"),),
        )
    return int(cursor)
