"""Unix time as people read it."""

from datetime import UTC, datetime


def moment(at: float) -> datetime:
    return datetime.fromtimestamp(at, UTC)


def moment_or_none(at: float | None) -> datetime | None:
    return None if at is None else moment(at)
