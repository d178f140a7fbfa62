"""A manager's inside with a clock that tests turn, and pilots that speak in frames."""

import asyncio
import hashlib
import itertools
from collections.abc import Sequence
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from copilot_agent.protocol.capabilities import Capabilities
from copilot_agent.protocol.enrolment import EnrolRequest, enrolment_statement
from copilot_agent.protocol.errors import FieldError
from copilot_agent.protocol.frames import (
    CommandKind,
    Held,
    InputLink,
    ManagerFrame,
    Offer,
    OutputLink,
    PilotFrame,
    Policy,
    Report,
    VerdictKind,
    Wants,
)
from copilot_agent.protocol.ids import make_id
from copilot_agent.protocol.job import STDERR, STDOUT, JobSpec, Outcome, Output, Phase, Usage
from job_manager_adapter.adapters.base import Adapter
from job_manager_adapter.services.build import Services, build_services
from job_manager_adapter.services.context import Config, Ed25519Signer, Experiment, base64url
from job_manager_adapter.services.principals import Principal
from job_manager_adapter.services.session import PilotSession
from job_manager_adapter.store.base import Store
from job_manager_adapter.views import JobView, Role, SubmitReply, SubmitRequest

OPERATOR = Principal("t-operator", Role.OPERATOR)
LHC = Principal("t-lhc", Role.EXPERIMENT, "lhc")
ALICE = Principal("t-alice", Role.EXPERIMENT, "alice")
LEASE = 60.0
LOGS = tuple(Output(name=name, sha256="0" * 64, size=0) for name in (STDOUT, STDERR))


class Clock:
    def __init__(self) -> None:
        self.now = 1_700_000_000.0
        self.ticks = 1000.0

    def time(self) -> float:
        return self.now

    def monotonic(self) -> float:
        return self.ticks

    def advance(self, seconds: float) -> None:
        self.now += seconds
        self.ticks += seconds


class CountingIds:
    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._count = itertools.count(1)

    def make(self, kind: str) -> str:
        return make_id(kind, self._clock.time(), next(self._count))

    def secret(self) -> str:
        return base64url(hashlib.sha256(str(next(self._count)).encode()).digest())


class FakeLinks:
    """A file store in which everything is there but what `missing` names."""

    def __init__(self) -> None:
        self.missing: set[str] = set()
        self.discarded: list[tuple[str, int]] = []

    def inputs(self, job: str, spec: JobSpec, now: float) -> tuple[InputLink, ...]:
        return tuple(
            InputLink(
                name=file.name,
                url=file.url or f"http://files/{file.sha256}",
                sha256=file.sha256,
                size=file.size,
            )
            for file in spec.inputs
        )

    def outputs(self, job: str, attempt: int, spec: JobSpec, now: float) -> tuple[OutputLink, ...]:
        names = (STDOUT, STDERR, *(file.name for file in spec.outputs))
        return tuple(
            OutputLink(name=name, url=f"http://files/{job}/{attempt}/{name}", max_bytes=1 << 20)
            for name in names
        )

    async def outputs_present(self, job: str, attempt: int, outputs: Sequence[Output]) -> list[str]:
        return [output.name for output in outputs if output.name in self.missing]

    async def inputs_present(self, experiment: str, spec: JobSpec) -> list[FieldError]:
        return [
            FieldError(field=f"inputs[{index}].sha256", message="not in the store")
            for index, file in enumerate(spec.inputs)
            if file.name in self.missing
        ]

    async def discard(self, job: str, attempt: int) -> None:
        self.discarded.append((job, attempt))


class World:
    """`services` over a store; `restart` is a manager that died and came back."""

    def __init__(self, store: Store, adapters: dict[str, Adapter] | None = None) -> None:
        self.store = store
        self.clock = Clock()
        self.ids = CountingIds(self.clock)
        self.links = FakeLinks()
        self.signer = Ed25519Signer(Ed25519PrivateKey.from_private_bytes(b"m" * 32))
        self.adapters = adapters or {}
        kinds = {name: "reference" for name in self.adapters}
        self.config = Config(
            experiments={
                name: Experiment(name, kinds.get(name, "queue")) for name in ("lhc", "alice", "cms")
            },
            policy=Policy(heartbeat_seconds=10.0, lease_seconds=LEASE),
        )
        self.services = self._build()

    def _build(self) -> Services:
        return build_services(
            self.store,
            clock=self.clock,
            ids=self.ids,
            signer=self.signer,
            links=self.links,
            config=self.config,
            adapters=self.adapters,
        )

    async def start(self) -> "World":
        await self.services.start()
        return self

    async def restart(self) -> None:
        await self.services.close()
        self.services = self._build()
        await self.services.start()

    async def settle(self) -> None:
        """Until everything under way is committed."""
        await self.services.settle()

    async def submit(
        self, count: int = 1, principal: Principal = LHC, **fields: Any
    ) -> SubmitReply:
        request = SubmitRequest(jobs=tuple(spec(**fields) for _ in range(count)))
        reply = await self.services.jobs.submit(principal, request)
        await self.settle()
        return reply

    async def job(self, job: str) -> JobView:
        return await self.services.jobs.get(OPERATOR, job)

    async def pilot(self, launcher: bytes = b"l", **fields: Any) -> "FakePilot":
        """Enrols with a secret of its own and attaches."""
        (enrolment,) = await self.services.enrolments.create()
        pilot = FakePilot(self, enrolment.secret or "", launcher, **fields)
        await pilot.enrol()
        await pilot.attach()
        return pilot


def spec(**fields: Any) -> JobSpec:
    return JobSpec(**{"experiment": "lhc", "command": ("true",), **fields})


def kinds(frame: object) -> list[CommandKind]:
    return [command.kind for command in getattr(frame, "commands", ())]


def verdicts(frame: object) -> list[VerdictKind]:
    return [verdict.verdict for verdict in getattr(frame, "verdicts", ())]


class FakePilot:
    """Says what it is told to say; holds what it is offered."""

    def __init__(
        self,
        world: World,
        secret: str,
        launcher: bytes = b"l",
        *,
        cores: int = 1,
        memory_mib: int = 1024,
        disk_mib: int = 4096,
        window: int = 0,
    ) -> None:
        self.world = world
        self.secret = secret
        self.launcher = Ed25519PrivateKey.from_private_bytes(launcher.ljust(32, b"."))
        self.key = Ed25519PrivateKey.generate()
        self.capabilities = Capabilities(cores=cores, memory_mib=memory_mib, disk_mib=disk_mib)
        self.wants = Wants(cores=cores, memory_mib=memory_mib, disk_mib=disk_mib, window=window)
        self.holding: dict[tuple[str, int], Phase] = {}
        self.offers: dict[tuple[str, int], Offer] = {}
        self.sequence = 0
        self.session: PilotSession
        self.id = ""
        self.host = ""

    def request(self) -> EnrolRequest:
        pilot_key = base64url(self.key.public_key().public_bytes_raw())
        statement = enrolment_statement(hashlib.sha256(self.secret.encode()).hexdigest(), pilot_key)
        return EnrolRequest(
            secret=self.secret,
            launcher_key=base64url(self.launcher.public_key().public_bytes_raw()),
            pilot_key=pilot_key,
            signature=base64url(self.launcher.sign(statement)),
            capabilities=self.capabilities,
        )

    async def enrol(self) -> None:
        enrolled = await self.world.services.pilots.enrol(self.request())
        self.id, self.host = enrolled.pilot, enrolled.host

    async def attach(self, **fields: Any) -> ManagerFrame:
        self.session = await self.world.services.pilots.attach(self.id, "websocket")
        frame = await self.say(**fields)
        assert frame is not None
        return frame

    def frame(self, **fields: Any) -> PilotFrame:
        self.sequence += 1
        holding = tuple(
            Held(job=job, attempt=attempt, phase=phase)
            for (job, attempt), phase in self.holding.items()
        )
        return PilotFrame(
            **{
                "session": self.session.number,
                "sequence": self.sequence,
                "wants": self.wants,
                "holding": holding,
                **fields,
            }
        )

    async def say(self, **fields: Any) -> ManagerFrame | None:
        """One frame, and what is answered once it is committed."""
        self.session.receive(self.frame(**fields))
        return await self.hear()

    async def hear(self) -> ManagerFrame | None:
        await self.world.settle()
        frame = await self.session.next(0)
        for offer in frame.offers if frame else ():
            self.offers[offer.job, offer.attempt] = offer
            self.holding[offer.job, offer.attempt] = Phase.QUEUED
        return frame

    async def run(self, job: str, attempt: int = 1) -> ManagerFrame | None:
        self.holding[job, attempt] = Phase.RUNNING
        return await self.say()

    def report(self, job: str, attempt: int = 1, **fields: Any) -> Report:
        self.holding[job, attempt] = Phase.REPORTING
        return Report(
            **{
                "job": job,
                "attempt": attempt,
                "outcome": Outcome.SUCCEEDED,
                "exit_code": 0,
                "usage": Usage(cpu_seconds=10.0, wall_seconds=12.0),
                "outputs": LOGS,
                **fields,
            }
        )

    async def finish(self, job: str, attempt: int = 1, **fields: Any) -> ManagerFrame:
        frame = await self.say(reports=(self.report(job, attempt, **fields),))
        assert frame is not None
        for verdict in frame.verdicts:
            self.holding.pop((verdict.job, verdict.attempt), None)
        return frame


def hold_claims(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> tuple[asyncio.Event, asyncio.Event]:
    """The first event says that a claim is committed; its answer waits for the second."""
    claim, committed, gate = world.store.claim, asyncio.Event(), asyncio.Event()

    async def slow(many: Any) -> Any:
        result = await claim(many)
        committed.set()
        await gate.wait()
        return result

    monkeypatch.setattr(world.store, "claim", slow)
    return committed, gate
