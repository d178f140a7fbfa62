"""One agent process in a virtual machine: the real runtime over simulated surroundings.

What copilot_agent/guest.py does over virtio ports is done here over the simulated channel, with
the real messages as lines of JSON.
"""

import asyncio
import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from copilot_agent.core import events as ev
from copilot_agent.core.attempts import Stage
from copilot_agent.core.events import Key
from copilot_agent.core.pilot import PilotCore
from copilot_agent.identity import Enroller, Voucher
from copilot_agent.payload.runner import PayloadPlan
from copilot_agent.protocol import guest as words
from copilot_agent.protocol.capabilities import Capabilities
from copilot_agent.protocol.receipt import Receipt
from copilot_agent.runtime import Runtime
from copilot_agent.transports.base import FileMoveError
from copilot_agent.transports.enrolment import EnrolmentClient
from copilot_agent.workshop import Place
from tests.simulation.carriers import Carriers
from tests.simulation.loop import Machine
from tests.simulation.session import PREFIX, SimulatedSession
from tests.simulation.workplace import (
    Run,
    SimulatedSandbox,
    SimulatedSpool,
    SimulatedStageIn,
    SimulatedStageOut,
    Workplace,
)


@dataclass
class Memory:
    """What a snapshot keeps of an agent's memory."""

    core: PilotCore
    runs: dict[Key, Run]


class RestoredSpool(SimulatedSpool):
    """The memory that was restored knows already what is on the disk."""

    def reports(self) -> tuple[Any, ...]:
        return ()

    def unfinished(self) -> tuple[Key, ...]:
        return ()


class NoMover:
    """Files are moved by the simulated staging."""

    async def download(self, url: str, target: Path, **_: Any) -> str:
        raise FileMoveError("nothing to download", retryable=False)

    async def upload(self, url: str, source: Path, **_: Any) -> None:
        raise FileMoveError("nothing to upload", retryable=False)


class Guest:
    """`say` takes a line for the launcher."""

    def __init__(
        self,
        machine: Machine,
        place: Workplace,
        session: SimulatedSession,
        carriers: Carriers,
        say: Callable[[str], None],
        epoch: Callable[[], int],
    ) -> None:
        self._machine = machine
        self._place = place
        self._session = session
        self._carriers = carriers
        self._say = say
        self._epoch = epoch
        self._public_key = ""
        self._sandbox = SimulatedSandbox(place)
        self._welcome: asyncio.Future[words.Welcome] = machine.loop.create_future()
        self._voucher: asyncio.Future[Voucher] = machine.loop.create_future()
        self._runtime: Runtime | None = None
        self._core: PilotCore | None = None

    async def run(self, restarted: bool, memory: Memory | None = None) -> None:
        if memory is None:
            self._hello(restarted)
            welcome = await self._welcome
            capabilities = Capabilities(
                cores=welcome.cores, memory_mib=welcome.memory_mib, disk_mib=welcome.disk_mib
            )
            core = PilotCore(capabilities, welcome.window, launcher=False)
            runtime = self._build(core, SimulatedSpool(self._place.directory))
        else:
            core = memory.core
            core._timer = None
            runtime = self._build(core, RestoredSpool(self._place.directory))
            _go_on(runtime, core, self._place)
        self._core, self._runtime = core, runtime
        await runtime.run()

    def _build(self, core: PilotCore, spool: SimulatedSpool) -> Runtime:
        clock = self._machine.clock.monotonic
        session: Any = self._session
        place = self._place
        sandbox: Any = self._sandbox
        enroller = Enroller(
            EnrolmentClient(session, PREFIX),
            self._vouch,
            core.work.capabilities,
            place.directory,
            clock,
        )
        return Runtime(
            core,
            self._carriers(enroller, clock),
            enroller,
            spool,
            sandbox,
            NoMover(),
            lambda _: self._staging(),
            lambda _: self,
        )

    def _staging(self) -> Any:
        return SimulatedStageIn(self._place), SimulatedStageOut(self._place, self._session)

    def snapshot(self) -> Memory | None:
        """None while something is half done that a copy could not show."""
        runtime, core = self._runtime, self._core
        if runtime is None or core is None or core.leaving or runtime._queue.qsize():
            return None
        if any(each.stage is Stage.SPOOLING for each in core.work.attempts.values()):
            return None
        payloads = self._sandbox.payloads
        runs = {key: payloads[key].left for key in self._place.runs if key in payloads}
        return Memory(copy.deepcopy(core), runs)

    # ----- to the launcher

    def tell(self, message: words.GuestMessage) -> None:
        self._say(message.model_dump_json(exclude_none=True))

    def keep_receipts(self, receipts: tuple[Receipt, ...]) -> None:
        self.tell(words.Receipts(receipts=receipts))

    def _hello(self, restarted: bool = False) -> None:
        self.tell(words.Hello(epoch=self._epoch(), agent_version="1", restarted=restarted))

    # ----- from the launcher

    def hear(self, line: str) -> None:
        message = words.HOST_MESSAGE.validate_json(line)
        match message:
            case words.Welcome():
                self._set_clock(message.time)
                if not self._welcome.done():
                    self._welcome.set_result(message)
            case words.Enrolment():
                self._vouched(message)
            case words.Resumed():
                self._set_clock(message.time)
                self._hello()
                self._post(ev.Resumed())
            case words.ReceiptsKept():
                self._post(ev.ReceiptsKept(message.ids))
            case words.PauseSoon():
                self._post(ev.PauseSoon(message.seconds))
            case words.Drain():
                self._post(ev.DrainAsked(message.undo, message.deadline_seconds))
            case words.Stop():
                self._post(ev.StopAsked(message.seconds))

    def _post(self, event: ev.Event) -> None:
        if self._runtime is not None:
            self._runtime.post(event)

    def _set_clock(self, wall: float) -> None:
        self._machine.clock.set(wall)
        if self._runtime is not None:
            self._runtime.clock_was_set()

    async def _vouch(self, pilot_key: str) -> Voucher:
        self._public_key = pilot_key
        while True:
            self.tell(words.Ready(pilot_key=pilot_key))
            try:
                async with asyncio.timeout(20.0):
                    return await asyncio.shield(self._voucher)
            except TimeoutError:
                continue

    def _vouched(self, message: words.Enrolment) -> None:
        if self._voucher.done():
            self._voucher = self._machine.loop.create_future()
        self._voucher.set_result(
            Voucher(
                secret=message.secret,
                launcher_key=message.launcher_key,
                signature=message.signature,
            )
        )


def _go_on(runtime: Runtime, core: PilotCore, place: Workplace) -> None:
    """Takes up what ran in the memory that was restored."""
    workshop = runtime._workshop
    for key, attempt in core.work.attempts.items():
        offer = attempt.offer
        if offer is None or attempt.stage in (Stage.QUEUED, Stage.REPORTING):
            continue
        directory = place.directory / f"{key.job}.{key.attempt}"
        log = directory.with_suffix(".log")
        plan = PayloadPlan(
            job=key.job,
            attempt=key.attempt,
            spec=offer.spec,
            directory=directory,
            stdout=log,
            stderr=log,
        )
        workshop._places[key] = Place(directory=directory, plan=plan)
        match attempt.stage:
            case Stage.STAGING_IN:
                workshop.stage_in(offer)
            case Stage.RUNNING:
                workshop.start(offer)
            case Stage.STAGING_OUT if attempt.retry_at is None:
                workshop.stage_out(offer)
            case _:
                pass
