"""Cursors of pages."""

import re

from copilot_agent.protocol.errors import FieldError
from job_manager_adapter.services.errors import InvalidError

_PAIR = re.compile(r"(e-[0-9a-z]{20})\.([a-z][a-z0-9-]{0,31})", re.ASCII)


def number(cursor: str | None) -> int | None:
    """Raises InvalidError for a cursor that is not ours."""
    if cursor is None:
        return None
    if not (cursor.isascii() and cursor.isdigit() and len(cursor) < 19):
        raise _not_ours()
    return int(cursor)


def pair(cursor: str | None) -> tuple[str, str] | None:
    """Of an enrolment and an experiment. Raises InvalidError for a cursor that is not ours."""
    if cursor is None:
        return None
    found = _PAIR.fullmatch(cursor)
    if not found:
        raise _not_ours()
    return found[1], found[2]


def _not_ours() -> InvalidError:
    return InvalidError(
        "the cursor is not one of ours",
        remedy="use `next_cursor` of the page before",
        errors=(FieldError(field="cursor", message="not a cursor of this list"),),
    )
