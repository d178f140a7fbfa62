"""Many schedules, on several processes.

What a schedule leaves behind is cheaper to leave than to collect, so each batch has a process of
its own, a fork of one that has imported everything; it ends without looking back.
"""

import gc
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from multiprocessing import Pipe, get_context
from multiprocessing.connection import Connection

from tests.simulation import isolation
from tests.simulation.checker import Violation
from tests.simulation.schedule import Carrier, cells_of, faults_over, plan
from tests.simulation.steps import Hits, Step
from tests.simulation.world import simulate

BATCH = 40
"""Schedules of one process; each leaves up to a megabyte behind."""
FULL = 2000
"""From so many schedules on no cell of the table may be empty."""


@dataclass
class Summary:
    wanted: Carrier | None = None
    """Of all schedules; None: as their seeds say."""
    count: int = 0
    carriers: Counter[Carrier] = field(default_factory=Counter)
    seconds: float = 0.0
    hits: Hits = field(default_factory=Counter)
    failures: dict[int, tuple[Violation, ...]] = field(default_factory=dict)
    """By seed."""

    @property
    def rate(self) -> float:
        return self.count / self.seconds if self.seconds else 0.0

    def violates(self, invariant: str) -> bool:
        return any(each.invariant == invariant for some in self.failures.values() for each in some)

    @property
    def missed(self) -> list[tuple[str, str]]:
        """Cells of the table without a hit, if there were enough schedules to have one in each."""
        cells = cells_of(self.wanted)
        return [cell for cell in cells if not self.hits[cell]] if self.count >= FULL else []

    def told(self) -> str:
        over = ", ".join(f"{self.carriers[carrier]} over {carrier}" for carrier in Carrier)
        return f"{self.count} schedules ({over}) in {self.seconds:.1f} s, {self.rate:.1f}/s"

    def table(self) -> str:
        faults = faults_over(self.wanted)
        lines = ["hits per fault and step of a job's life", " " * 14 + _row(Step)]
        for fault in faults:
            lines.append(f"{fault:14}" + _row(self.hits[fault, step] for step in Step))
        return "\n".join(lines)


def _row(values: object) -> str:
    return "".join(f"{value!s:>10}" for value in values)  # type: ignore[attr-defined]


@dataclass(frozen=True)
class Outcome:
    seed: int
    carrier: Carrier
    violations: tuple[Violation, ...]
    hits: Hits


Work = Callable[[list[int]], list[Outcome]]


def _batch(seeds: list[int], carrier: Carrier | None) -> list[Outcome]:
    """Raises EOFError when its process died."""
    answers, answer = Pipe(duplex=False)
    process = get_context("fork").Process(target=_simulate, args=(seeds, carrier, answer))
    process.start()
    answer.close()
    with answers:
        outcomes: list[Outcome] = answers.recv()
    process.join()
    return outcomes


def _simulate(seeds: list[int], carrier: Carrier | None, answer: Connection) -> None:
    outcomes = []
    for seed in seeds:
        try:
            result = simulate(seed, carrier, tidy=False)
        except Exception as error:  # noqa: BLE001 - a seed that breaks the simulation is a finding
            violation = Violation("broken", repr(error))
            over = plan(seed, carrier).carrier
            outcomes.append(Outcome(seed, over, (violation,), Counter()))
        else:
            outcomes.append(Outcome(seed, result.carrier, result.violations, result.hits))
    answer.send(outcomes)


def _begin() -> None:
    """In each process; Ctrl-C is the first one's affair."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    isolation.patch()
    gc.disable()


def run(
    seeds: range,
    *,
    carrier: Carrier | None = None,
    processes: int = 2,
    until: str | None = None,
    progress: Callable[[Summary], None] = lambda _: None,
) -> Summary:
    """All of them, or until one fails by the invariant `until`."""
    summary, began = Summary(carrier), time.monotonic()
    batches = (list(seeds[first : first + BATCH]) for first in range(0, len(seeds), BATCH))
    work = partial(_batch, carrier=carrier)
    # To fork saves each process its imports, but is only safe without threads.
    method = "fork" if threading.active_count() == 1 else "spawn"
    with ProcessPoolExecutor(processes, get_context(method), _begin) as pool:
        try:
            for outcomes in _done(pool, work, batches, 2 * processes):
                for outcome in outcomes:
                    _add(summary, outcome)
                summary.seconds = time.monotonic() - began
                progress(summary)
                if until is not None and summary.violates(until):
                    break
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
    return summary


def _done(
    pool: ProcessPoolExecutor, work: Work, batches: Iterator[list[int]], ahead: int
) -> Iterator[list[Outcome]]:
    """As they end; `ahead` are asked for at a time."""
    asked: set[Future[list[Outcome]]] = {pool.submit(work, b) for b in islice(batches, ahead)}
    while asked:
        done, asked = wait(asked, return_when=FIRST_COMPLETED)
        for future in done:
            asked |= {pool.submit(work, batch) for batch in islice(batches, 1)}
            yield future.result()


def _add(summary: Summary, outcome: Outcome) -> None:
    summary.count += 1
    summary.carriers[outcome.carrier] += 1
    summary.hits.update(outcome.hits)
    if outcome.violations:
        summary.failures[outcome.seed] = outcome.violations
