"""How long a job rests after a failed attempt."""

LONGEST = 300.0
"""Of the first back-off, so the longest is 5 minutes where the first is 1 second."""


def rest_seconds(failures: int, first: float, chance: float) -> float:
    """`first` after one failure, then doubling; half of it by chance (0 to 1)."""
    if failures < 1:
        return 0.0
    full = first * min(2.0 ** min(failures - 1, 30), LONGEST)
    return full * (0.5 + 0.5 * chance)
