"""One schedule from its first boot to the end of its last job."""

import shutil
import tempfile
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from job_manager_adapter.services.enrolments import Enrolments
from tests.simulation.checker import Violation, check
from tests.simulation.faults import FAULTS, victim
from tests.simulation.host import Host
from tests.simulation.isolation import bury, isolated
from tests.simulation.ledger import Ledger
from tests.simulation.loop import Clock, Universe
from tests.simulation.manager import LEASE, SIGNER, FileStore, Manager, SimulatedIds
from tests.simulation.schedule import Carrier, Plan, Strike, plan
from tests.simulation.scheduler import Scheduler
from tests.simulation.session import Server
from tests.simulation.steps import Hits, Step, Steps
from tests.simulation.store import Database, outcome_of
from tests.simulation.timing import check_times
from tests.simulation.users import Users
from tests.simulation.xmpp_server import XmppServer

MOST_SECONDS = 600.0
"""After the last fault everything has to have ended by then."""
LEAST_SECONDS = 20.0
LOOK_SECONDS = 30.0
SNAPSHOT_SECONDS = 7.0
Item = TypeVar("Item")
MEMORY = Path("/dev/shm")


@dataclass(frozen=True)
class Result:
    seed: int
    carrier: Carrier
    violations: tuple[Violation, ...]
    hits: Hits
    trace: str
    seconds: float
    """Virtual ones."""


class World:
    def __init__(self, seed: int, directory: Path, carrier: Carrier | None) -> None:
        self.plan: Plan = plan(seed, carrier)
        self.universe = Universe(seed)
        self.ledger = Ledger(self.universe)
        self.steps = Steps()
        self.steps.entered = self._entered
        self.hits: Hits = Counter()
        self.database = Database(self.universe, embedded=self.plan.embedded)
        self.scheduler = Scheduler(self.universe, self.ledger, self.steps)
        computer = Clock(self.universe)
        over_xmpp = self.plan.carrier is Carrier.XMPP
        self.server = Server(XmppServer(self.universe, computer) if over_xmpp else None)
        self.files = FileStore()
        self.manager = Manager(
            self.universe,
            computer,
            self.database,
            self.server,
            self.ledger,
            self.steps,
            self.scheduler if self.plan.upstream else None,
            self.files,
        )
        self.users = Users(self.manager, self.ledger)
        self.hosts = list(self._make_hosts(directory))
        self._pending = list(self.plan.strikes)
        self._coming = 0
        """Strikes that have met their step, and wait."""
        self._seen: Counter[Step] = Counter()
        self._done = False

    def choose(self, *among: Item) -> Item:
        return self.universe.random.choice(among)

    def about_a_lease(self, host: Host) -> float:
        """So that its next word comes just before, or just after, its leases run out."""
        silent = self.universe.now - self.ledger.spoke.get(host.name, self.universe.now)
        return max(1.0, LEASE + self.universe.random.uniform(-0.5, 1.5) - silent)

    # ----- beginning

    def _make_hosts(self, directory: Path) -> Iterable[Host]:
        ids = SimulatedIds(self.manager.clock, self.universe)
        store = self.database.durable
        made = outcome_of(
            Enrolments(store, self.manager.clock, ids).create(count=len(self.plan.hosts))
        )
        for number, (size, view) in enumerate(zip(self.plan.hosts, made, strict=True), start=1):
            host = Host(
                self.universe,
                f"host{number}",
                size,
                view.secret,
                self.server,
                self.ledger,
                self.steps,
                directory,
            )
            host.line.sockets_pass = not self.plan.polling[number - 1]
            host.falls_back = self.plan.falling_back[number - 1]
            self.manager.launchers[host.launcher_key] = host.name
            self.ledger.hosts.append(host.name)
            yield host

    def _set_going(self) -> None:
        universe = self.universe
        universe.note("plan", f"seed {self.plan.seed} over {self.plan.carrier}")
        self.manager.start()
        for host in self.hosts:
            universe.after(universe.random.uniform(0.0, 2.0), host.start)
        for number, (at, specs) in enumerate(self.plan.submissions):
            universe.after(at, self.users.submit, f"key-{number}", specs)
        self.scheduler.add(self.plan.upstream)
        for at, number in self.plan.cancels:
            universe.after(at, self._cancel, number)
        for begin, end, number in self.plan.drains:
            universe.after(begin, self.users.drain, self.hosts[number].name, end)
        for strike in self.plan.strikes:
            universe.after(strike.latest, self._overdue, strike)
        universe.after(LOOK_SECONDS, self._look)
        if self.plan.snapshots:
            universe.after(10.0, self._take_snapshots)

    def _cancel(self, number: int) -> None:
        jobs = sorted(self.ledger.submitted)
        if number < len(jobs):
            self.users.cancel(jobs[number])
            if number % 3 == 0:
                self.users.retry(jobs[number], self.universe.random.uniform(0.1, 40.0))

    def _look(self) -> None:
        self.users.look()
        if not self._done:
            self.universe.after(LOOK_SECONDS, self._look)

    def _take_snapshots(self) -> None:
        for host in self.hosts:
            if self.universe.random.random() < 0.5:
                host.take_snapshot()
        if self._pending:
            self.universe.after(SNAPSHOT_SECONDS, self._take_snapshots)

    # ----- faults

    def _entered(self, step: Step, job: str, host: str) -> None:
        self._seen[step] += 1
        self.universe.note(host or "-", f"{step} {job}")
        for strike in self._pending[:]:
            if strike.step is step and self._seen[step] >= strike.nth and self._ready(strike, host):
                self._pending.remove(strike)
                struck = self._host(host)
                if strike.wait:
                    self._coming += 1
                    self.universe.after(strike.wait, self._comes, strike, struck)
                else:
                    self.universe.interrupt(
                        lambda strike=strike, struck=struck: self._strike(strike, struck, True)  # type: ignore[misc]
                    )

    def _comes(self, strike: Strike, host: Host) -> None:
        self._coming -= 1
        self._strike(strike, host, False)

    def _host(self, name: str) -> Host:
        return next((host for host in self.hosts if host.name == name), self.hosts[0])

    def _ready(self, strike: Strike, host: str) -> bool:
        return strike.fault != "rollback" or self._host(host).snapshot is not None

    def _overdue(self, strike: Strike) -> None:
        if strike in self._pending:
            self._pending.remove(strike)
            self._strike(strike, self.choose(*self.hosts), False)

    def _strike(self, strike: Strike, host: Host, at_step: bool) -> None:
        met = self.steps.met(victim(strike.fault, host))
        if at_step:
            met.add(strike.step)
        for step in met:
            self.hits[strike.fault, step] += 1
        where = " ".join(sorted(met))
        self.universe.note(host.name, f"FAULT {strike.fault} at {where}")
        FAULTS[strike.fault](self, host)

    def trouble(self, kind: str, host: Host | None, seconds: float) -> None:
        self.ledger.trouble(kind, host.name if host else "", seconds)

    # ----- end

    def run(self) -> Result:
        self._set_going()
        universe = self.universe
        calm = universe.run(self._calm, MOST_SECONDS)
        self.ledger.quiet = calm and universe.run(self._quiet, universe.now + MOST_SECONDS)
        universe.run(lambda: False, universe.now + 5.0)
        self._done = True
        self.ledger.upstream_jobs = self.scheduler.jobs
        for path in self.files.paths:
            _, _, job, attempt, name = path.split("/", 4)
            self.ledger.uploads[job, int(attempt)].add(name)
        self.users.look_at_all()
        universe.run(lambda: bool(self.ledger.final), universe.now + 60.0)
        violations = (
            *check(self.ledger, SIGNER.public_key),
            *check_times(self.ledger),
            *(Violation("unexpected-error", text) for text in universe.errors),
        )
        for violation in violations:
            universe.note("checker", f"VIOLATION {violation}")
        trace = "\n".join(universe.trace) + "\n"
        return Result(self.plan.seed, self.plan.carrier, violations, self.hits, trace, universe.now)

    def _calm(self) -> bool:
        """Every fault has been and gone."""
        now = self.universe.now
        if self._pending or self._coming or now < LEAST_SECONDS:
            return False
        return all(trouble.ended < now for trouble in self.ledger.troubles)

    def _quiet(self) -> bool:
        return (
            not self.users.waiting
            and self.scheduler.settled
            and self.manager.all_final()
            and self.manager.all_kept(self.ledger)
            and not any(payload.ended is None for payload in self.ledger.payloads)
        )


def simulate(seed: int, carrier: Carrier | None = None, *, tidy: bool = True) -> Result:
    """One schedule; the same seed (and carrier) gives the same result, to the byte.

    `tidy`: what it leaves behind is collected at once; otherwise `isolation.bury` is the caller's.
    """
    base = MEMORY if MEMORY.is_dir() else None
    directory = Path(tempfile.mkdtemp(prefix="copilot-simulation-", dir=base))
    try:
        world = World(seed, directory, carrier)
        with isolated(world.universe, seed):
            result = world.run()
    finally:
        shutil.rmtree(directory)
    del world
    if tidy:
        bury()
    return result
