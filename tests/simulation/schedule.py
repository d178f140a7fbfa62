"""From a seed to a plan: who is there, what is to be done, which faults strike at which step.

The first fault of a plan walks through all cells of the table (fault × step) as seeds go up; the
others, and everything else, are drawn.
"""

import random
from dataclasses import dataclass
from enum import StrEnum

from copilot_agent.protocol.job import JobSpec
from tests.simulation.faults import FAULTS, XMPP_FAULTS
from tests.simulation.host import Size
from tests.simulation.steps import Step
from tests.simulation.users import job_spec

Cell = tuple[str, Step]
XMPP_SHARE = 0.2
"""Of the schedules whose first fault says nothing about it."""


class Carrier(StrEnum):
    """Of the conversation; enrolment, renewal and files always take HTTP."""

    HTTP = "http"
    XMPP = "xmpp"


def faults_over(carrier: Carrier | None) -> tuple[str, ...]:
    """None: over the one or the other."""
    return tuple(
        fault for fault in FAULTS if carrier is not Carrier.HTTP or fault not in XMPP_FAULTS
    )


def cells_of(carrier: Carrier | None) -> tuple[Cell, ...]:
    return tuple((fault, step) for fault in faults_over(carrier) for step in Step)


@dataclass(frozen=True)
class Strike:
    """A fault at the `nth` time that a job comes to a step, but at the latest at a time."""

    fault: str
    step: Step
    nth: int
    latest: float
    wait: float
    """Seconds between the step and the fault; 0: before anybody does anything else."""


@dataclass(frozen=True)
class Plan:
    seed: int
    carrier: Carrier
    hosts: tuple[Size, ...]
    polling: tuple[bool, ...]
    """By host: no WebSockets pass."""
    falling_back: tuple[bool, ...]
    """By host: where XMPP does not work, HTTP is used."""
    embedded: bool
    submissions: tuple[tuple[float, tuple[JobSpec, ...]], ...]
    upstream: tuple[JobSpec, ...]
    strikes: tuple[Strike, ...]
    cancels: tuple[tuple[float, int], ...]
    """When, and the how manieth job."""
    drains: tuple[tuple[float, float, int], ...]
    """From, until, and which host."""
    snapshots: bool


def plan(seed: int, wanted: Carrier | None = None) -> Plan:
    """`wanted`: else the seed says what carries the conversation."""
    chance = random.Random(f"plan {seed}")  # noqa: S311 - a schedule, not a secret
    cells = cells_of(wanted)
    first = cells[seed % len(cells)]
    carrier = wanted or _carrier(seed, first)
    strikes = _strikes(chance, first, faults_over(carrier))
    told = any(strike.step is Step.TOLD for strike in strikes)
    hosts = tuple(
        Size(chance.randint(1, 2), chance.randint(0, 2))
        for _ in range(3 if chance.random() < 0.9 else 4)
    )
    return Plan(
        seed=seed,
        carrier=carrier,
        hosts=hosts,
        polling=tuple(chance.random() < 0.3 for _ in hosts),
        falling_back=_falling_back(seed, len(hosts)),
        embedded=chance.random() < 0.5,
        submissions=tuple(_submissions(chance)),
        upstream=tuple(_spec(chance, "cms") for _ in range(chance.randint(2, 4) if told else 0)),
        strikes=strikes,
        cancels=tuple(
            (chance.uniform(6.0, 40.0), chance.randrange(10)) for _ in range(chance.randrange(3))
        ),
        drains=tuple(
            (begin, begin + chance.uniform(5.0, 30.0), chance.randrange(len(hosts)))
            for begin in [chance.uniform(10.0, 40.0)][: chance.randrange(2)]
        ),
        snapshots=any(strike.fault == "rollback" for strike in strikes),
    )


def _carrier(seed: int, first: Cell) -> Carrier:
    """XMPP for about a quarter of all seeds."""
    chance = random.Random(f"carrier {seed}")  # noqa: S311 - a schedule, not a secret
    over_xmpp = first[0] in XMPP_FAULTS or chance.random() < XMPP_SHARE
    return Carrier.XMPP if over_xmpp else Carrier.HTTP


def _falling_back(seed: int, hosts: int) -> tuple[bool, ...]:
    chance = random.Random(f"falling back {seed}")  # noqa: S311 - a schedule, not a secret
    return tuple(chance.random() < 0.3 for _ in range(hosts))


def _strikes(chance: random.Random, first: Cell, possible: tuple[str, ...]) -> tuple[Strike, ...]:
    """At least three, of at least two kinds."""
    cells = [first]
    others = [fault for fault in possible if fault != first[0]]
    for number in range(chance.choice((2, 2, 3))):
        faults = others if number == 0 else list(possible)
        steps = [step for step in Step if step is not Step.TOLD]
        cells.append((chance.choice(faults), chance.choice(steps)))
    return tuple(_strike(chance, *cell) for cell in cells)


def _strike(chance: random.Random, fault: str, step: Step) -> Strike:
    nth = chance.choice((1, 1, 2, 3, 5))
    latest = 120.0 if step is Step.TOLD else chance.uniform(16.0, 32.0)
    soon, later = chance.uniform(0.0, 0.05), chance.uniform(0.0, 8.0)
    wait = chance.choice((0.0, 0.0, soon, later, chance.uniform(8.0, 20.0)))
    return Strike(fault, step, 1 if step is Step.TOLD else nth, latest, wait)


def _submissions(chance: random.Random) -> list[tuple[float, tuple[JobSpec, ...]]]:
    total, parts = chance.choice((10, 10, 11)), []
    while total > 0:
        count = min(total, chance.randint(2, 6))
        parts.append((chance.uniform(0.5, 15.0), tuple(_spec(chance, "lhc") for _ in range(count))))
        total -= count
    return parts


def _spec(chance: random.Random, experiment: str) -> JobSpec:
    return job_spec(
        experiment,
        seconds=chance.choice((1.0, 2.0, 4.0, 8.0, 12.0, 24.0)),
        failing=chance.choice((0.0, 0.0, 0.0, 0.3)),
        attempts=chance.choice((2, 3, 5)),
        pause=chance.choice((60, 60, 90)),
    )
