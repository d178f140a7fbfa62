"""Sums of receipts by enrolment."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CreditQuery:
    experiment: str | None = None
    since: float | None = None
    """Accepted then or later."""
    until: float | None = None
    """Accepted before."""
    after: tuple[str, str] = ("", "")
    """Enrolment and experiment of the last row of the page before."""
    limit: int = 100


@dataclass(frozen=True, slots=True)
class CreditRow:
    """What jobs of one experiment earned with one enrolment."""

    enrolment: str
    experiment: str
    label: str
    """The enrolment's; empty where the enrolment is gone."""
    granted: float
    cpu_seconds: float
    receipts: int
    first: float
    """When the first of them was accepted."""
    last: float
