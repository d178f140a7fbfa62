"""The manager: the real services over the simulated database and wires, in a process that dies."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from copilot_agent.protocol.errors import CopilotError, FieldError
from copilot_agent.protocol.frames import InputLink, OutputLink, PilotFrame, Policy
from copilot_agent.protocol.ids import make_id
from copilot_agent.protocol.job import STDERR, STDOUT, JobSpec, JobState, Output
from job_manager_adapter.services.build import Services, build_services
from job_manager_adapter.services.context import Config, Ed25519Signer, Experiment, base64url
from job_manager_adapter.store.base import StoreError
from tests.simulation.door import Door
from tests.simulation.ledger import Ledger
from tests.simulation.loop import Clock, Machine, Universe
from tests.simulation.scheduler import Scheduler
from tests.simulation.session import PREFIX, Server
from tests.simulation.steps import Step, Steps
from tests.simulation.store import Call, Connection, Database
from tests.simulation.xmpp_manager import ComponentStream, build_component
from tests.simulation.xmpp_server import ADDRESS

LEASE, HEARTBEAT = 30.0, 6.0
RETRY_SECONDS = 2.0
SUPERVISOR_SECONDS = 2.0
SIGNER = Ed25519Signer(Ed25519PrivateKey.from_private_bytes(b"m" * 32))
CONFIG = Config(
    experiments={"lhc": Experiment("lhc"), "cms": Experiment("cms", "scheduler")},
    policy=Policy(heartbeat_seconds=HEARTBEAT, lease_seconds=LEASE),
    retry_seconds=RETRY_SECONDS,
)
Work = Callable[[Services], Awaitable[Any]]


class SimulatedIds:
    def __init__(self, clock: Clock, universe: Universe) -> None:
        self._clock = clock
        self._universe = universe

    def make(self, kind: str) -> str:
        return make_id(kind, self._clock.time(), self._universe.random.getrandbits(50))

    def secret(self) -> str:
        return base64url(self._universe.random.randbytes(32))


class FileStore:
    """Uploaded outputs by path; durable when the upload is answered."""

    def __init__(self) -> None:
        self.paths: set[str] = set()

    def inputs(self, job: str, spec: JobSpec, now: float) -> tuple[InputLink, ...]:
        return ()

    def outputs(self, job: str, attempt: int, spec: JobSpec, now: float) -> tuple[OutputLink, ...]:
        names = (STDOUT, STDERR, *(file.name for file in spec.outputs))
        return tuple(
            OutputLink(name=name, url=f"{PREFIX}/files/{job}/{attempt}/{name}", max_bytes=1 << 20)
            for name in names
        )

    async def outputs_present(self, job: str, attempt: int, outputs: Sequence[Output]) -> list[str]:
        names = [output.name for output in outputs]
        return [name for name in names if f"/files/{job}/{attempt}/{name}" not in self.paths]

    async def inputs_present(self, experiment: str, spec: JobSpec) -> list[FieldError]:
        return []

    async def discard(self, job: str, attempt: int) -> None:
        """Nothing is old enough here."""


class Manager:
    """One after the other: `crash`, `start`."""

    def __init__(
        self,
        universe: Universe,
        clock: Clock,
        database: Database,
        server: Server,
        ledger: Ledger,
        steps: Steps,
        scheduler: Scheduler | None,
        files: FileStore,
    ) -> None:
        self.universe = universe
        self.clock = clock
        self.services: Services | None = None
        self.pilot_hosts: dict[str, str] = {}
        """Pilot → host."""
        self.launchers: dict[str, str] = {}
        """Launcher key → host."""
        self._machine: Machine | None = None
        self._stream: ComponentStream | None = None
        self._database = database
        self._server = server
        self._ledger = ledger
        self._steps = steps
        self._scheduler = scheduler
        self._files = files
        self._asking: dict[int, Callable[[], None]] = {}
        self._asked = 0
        database.asked = self._store_asked
        database.committed = self._store_committed
        self._on_commit: dict[str, Callable[[Call, Any], None]] = {
            "claim": self._claimed,
            "finish": self._finished,
            "submit": self._submitted,
            "release": self._released,
            "enrol": self._enrolled,
            "receipts_kept": lambda _call, _result: self._steps.leave_all(Step.CREDITED),
        }

    # ----- the process

    def start(self) -> None:
        if self._machine is None:
            machine = self._machine = Machine(self.universe, "manager", self.clock)
            machine.spawn(self._serve(machine))

    async def _serve(self, machine: Machine) -> None:
        store: Any = Connection(self._database, machine)
        adapters: Any = {"cms": self._scheduler} if self._scheduler else {}
        try:
            await store.open()
            services = build_services(
                store,
                clock=machine.clock,
                ids=SimulatedIds(machine.clock, self.universe),
                signer=SIGNER,
                links=self._files,
                config=CONFIG,
                adapters=adapters,
            )
            await services.start()
        except StoreError as error:
            self.universe.note("manager", f"does not start: {error.message}")
            self.universe.after(0.0, self.crash)
            self.universe.after(SUPERVISOR_SECONDS, self.start)
            return
        self.services = services
        self._open_doors(machine, services)
        self._ledger.serving.append(self.universe.now)
        self.universe.note("manager", "serves")
        await services.run()

    def _open_doors(self, machine: Machine, services: Services) -> None:
        xmpp = self._server.xmpp
        if xmpp is not None:
            stream = self._stream = ComponentStream(machine, xmpp)
            machine.spawn(build_component(stream, services.pilots, self._heard).run())
        address = None if xmpp is None else ADDRESS
        stored = self._files.paths.add
        self._server.door = Door(machine, services, self._heard, stored, address)

    def crash(self) -> None:
        machine, self._machine = self._machine, None
        if machine is None:
            return
        machine.kill()
        if self._server.door is not None:
            self._server.door.died()
        if self._stream is not None:
            self._stream.died()
        self._server.door = self.services = self._stream = None
        self._database.client_died(machine)
        asking, self._asking = self._asking, {}
        for failed in asking.values():
            self.universe.after(0.02, failed)

    # ----- what users ask

    def ask(self, work: Work, done: Callable[[Any], object], failed: Callable[[], object]) -> None:
        """A request by the API; `failed` when no answer comes, whatever was done."""
        self._asked += 1
        number = self._asked
        self._asking[number] = lambda: _call(failed)
        self.universe.after(0.01, self._arrives, number, work, done)

    def _arrives(self, number: int, work: Work, done: Callable[[Any], object]) -> None:
        if self._machine is None or self.services is None:
            self._answer(number, None)
        else:
            self._machine.spawn(self._answered(number, work(self.services), done))

    async def _answered(
        self, number: int, work: Awaitable[Any], done: Callable[[Any], object]
    ) -> None:
        try:
            result = await work
        except CopilotError as error:
            self.universe.note("manager", f"refuses: {error.message}")
            self.universe.after(0.01, self._answer, number, None)
        else:
            self.universe.after(0.01, self._answer, number, lambda: done(result))

    def _answer(self, number: int, answer: Callable[[], object] | None) -> None:
        failed = self._asking.pop(number, None)
        if failed is not None:
            (answer or failed)()

    # ----- what is seen on the way

    def _heard(self, pilot: str, frame: PilotFrame) -> None:
        self._ledger.frame_heard(self.pilot_hosts[pilot], frame)

    def _store_asked(self, call: Call) -> None:
        if call.name == "claim":
            for claim in call.arguments[0]:
                self._steps.asked(self.pilot_hosts[claim.pilot])

    def _store_committed(self, call: Call, result: Any) -> None:
        """What is durable now moves jobs to their next steps."""
        act = self._on_commit.get(call.name)
        if act is not None:
            act(call, result)

    def _claimed(self, call: Call, result: Any) -> None:
        for claim, claimed in zip(call.arguments[0], result, strict=True):
            for got in claimed:
                self._steps.enter(Step.GRANTED, got.job, self.pilot_hosts[claim.pilot])

    def _finished(self, call: Call, result: Any) -> None:
        for item, finished in zip(call.arguments[0], result, strict=True):
            if finished.state is not None:
                self._steps.enter(Step.COMMITTED, item.report.job)

    def _submitted(self, call: Call, result: Any) -> None:
        for submission in call.arguments[0]:
            for job in submission.jobs:
                if job.upstream and self._scheduler:
                    self._scheduler.jobs.setdefault(job.upstream, job.id)

    def _released(self, call: Call, result: Any) -> None:
        for released in result:
            if released.state is not None:
                self._steps.leave(released.job)

    def _enrolled(self, call: Call, result: Any) -> None:
        for asked, enrolled in zip(call.arguments[0], result, strict=True):
            if enrolled.refusal is None:
                host = self.launchers[asked.launcher_key]
                self.pilot_hosts[asked.id] = host
                self._ledger.enrolled[host].append(self.universe.now)

    # ----- the end

    def all_final(self) -> bool:
        """Looked up behind the API, for want of a better moment to stop."""
        table = self._database.durable._table
        return all(row.state.final for row in table.rows())

    def all_kept(self, ledger: Ledger) -> bool:
        """Every receipt is with its launcher."""
        kept = {receipt.statement.id for _, receipt in ledger.receipts}
        return all(receipt.statement.id in kept for receipt in self._database.durable._receipts)


def _call(action: Callable[[], object]) -> None:
    action()


FINAL = frozenset(state for state in JobState if state.final)
