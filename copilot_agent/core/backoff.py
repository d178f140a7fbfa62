"""Pauses before something is tried again."""


def half(seconds: float, jitter: float) -> float:
    """Half of it for certain, half by chance, so that a fleet does not come back all at once."""
    return seconds / 2 + seconds / 2 * jitter


def doubled(first: float, failures: int, most: float, jitter: float) -> float:
    """After so many failures in a row, from 1 on; `first` and `most` in seconds."""
    return half(min(most, first * 2.0 ** min(failures - 1, 10)), jitter)
