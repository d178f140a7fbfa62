"""Durations and times as people write them."""

import argparse
from datetime import UTC, datetime, timedelta

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def duration(text: str) -> float:
    """Seconds of `90`, `90s`, `30m`, `2h` or `7d`."""
    unit = _UNITS.get(text[-1:], 0)
    number = text[:-1] if unit else text
    try:
        seconds = float(number) * (unit or 1)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}: write it as 90s, 30m, 2h or 7d") from None
    if not 0 <= seconds <= 1e7:
        raise argparse.ArgumentTypeError(f"{text!r}: at most 115 days are possible")
    return seconds


def moment(text: str) -> datetime:
    """`2026-01-31`, `2026-01-31T12:00Z` (UTC if no zone is given), or how long ago: `7d`."""
    if text[-1:] in _UNITS:
        return datetime.now(UTC) - timedelta(seconds=duration(text))
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        message = f"{text!r}: write it as 2026-01-31, 2026-01-31T12:00Z, or as 12h, 7d ago"
        raise argparse.ArgumentTypeError(message) from None
    return at if at.tzinfo else at.replace(tzinfo=UTC)
