"""Durations as people write them."""

import argparse

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
