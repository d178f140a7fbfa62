"""BOINC's recent average credit: exponential, in units per day, with a half life of a week."""

import math

DAY = 86400.0
HALF_LIFE = 7 * DAY
_SHORTEST = 60.0
"""A first piece of work is never taken for shorter: its average would go beyond all bounds."""


def grown(average: float, averaged_at: float, work: float, started: float, now: float) -> float:
    """The average at `now`, after new work that began at `started`; all times in Unix seconds.

    `averaged_at` is when `average` was computed, 0 for never: then it is the work for each day
    since `started`. Else the work is taken as spread evenly from `averaged_at` to `now`, and the
    old rate and this one are weighted so that without new work the average halves in a half life.
    """
    if not averaged_at:
        return work * DAY / max(now - started, _SHORTEST)
    passed = max(now - averaged_at, 0.0)
    kept = math.exp2(-passed / HALF_LIFE)
    if 1 - kept > 1e-6:
        return average * kept + (1 - kept) * work * DAY / passed
    return average * kept + math.log(2) * work * DAY / HALF_LIFE  # the limit for no time at all
