"""The shell around the core: runs effects, feeds their results back."""

import asyncio
import logging
import signal
import time
from collections.abc import Callable
from typing import Protocol, assert_never

from copilot_agent.conversation import Conversation, Grants
from copilot_agent.core import effects as do
from copilot_agent.core import events as ev
from copilot_agent.core.cpu_claim import Reading
from copilot_agent.core.pilot import PilotCore
from copilot_agent.fresh_links import FreshLinks
from copilot_agent.payload.runner import Sandbox
from copilot_agent.protocol.guest import GuestMessage
from copilot_agent.protocol.receipt import Receipt
from copilot_agent.spool import Spool
from copilot_agent.transports.base import FileMover, Transport
from copilot_agent.workshop import ProxyMaker, StagesIn, StagesOut, Workshop

log = logging.getLogger(__name__)

CLOCK_LOOK_SECONDS = 5.0
CLOCK_JUMP_SECONDS = 10.0
STOP_SECONDS = 5.0


class Host(Protocol):
    """Who keeps receipts and wants news: the launcher, or the log and a file."""

    def tell(self, message: GuestMessage) -> None: ...

    def keep_receipts(self, receipts: tuple[Receipt, ...]) -> None: ...


class Staging(Protocol):
    """Makes both ends of staging on top of a mover."""

    def __call__(self, mover: FileMover, /) -> tuple[StagesIn, StagesOut]: ...


class Runtime:
    """`run` once. `post` may be called by anybody in the loop's thread."""

    def __init__(
        self,
        core: PilotCore,
        transport: Transport,
        grants: Grants,
        spool: Spool,
        sandbox: Sandbox,
        mover: FileMover,
        staging: Staging,
        host: Callable[["Runtime"], Host],
        proxy: ProxyMaker | None = None,
    ) -> None:
        self._core = core
        self._spool = spool
        self._queue: asyncio.Queue[tuple[ev.Event, int | None] | BaseException] = asyncio.Queue()
        self._conversation = Conversation(transport, grants, self._post_of, self._queue.put_nowait)
        links = FreshLinks(mover, lambda key: self.post(ev.LinksWanted(key)))
        stage_in, stage_out = staging(links)
        self._sandbox = sandbox
        self._workshop = Workshop(
            sandbox, stage_in, stage_out, links, self.post, self._queue.put_nowait, proxy
        )
        self._host = host(self)
        self._timer: asyncio.TimerHandle | None = None
        self._exit_code: int | None = None
        self._clock_offset = 0.0

    def post(self, event: ev.Event) -> None:
        self._queue.put_nowait((event, None))

    def host_used(self, reading: Reading | None) -> None:
        """What this virtual machine has cost its host; None: it was stopped meanwhile."""
        self._workshop.host_used(reading)

    def clock_was_set(self) -> None:
        """On purpose: that is no jump."""
        self._clock_offset = time.time() - time.monotonic()

    async def run(self) -> int:
        """The exit code. Stops on SIGTERM and SIGINT; a second one stops at once."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop)
        self.clock_was_set()
        watch = asyncio.create_task(self._watch_clock())
        try:
            await self._recover()
            return await self._serve()
        finally:
            watch.cancel()
            if self._timer is not None:
                self._timer.cancel()
            await self._conversation.close()
            await self._workshop.close()
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)

    # ----- events

    async def _recover(self) -> None:
        for found in await self._sandbox.reclaim():
            log.warning("cleared up after an earlier agent: %s", found)
        self.post(ev.Started(self._spool.unfinished(), self._spool.reports()))

    async def _serve(self) -> int:
        loop = asyncio.get_running_loop()
        while self._exit_code is None:
            events = [await self._next()]
            while not self._queue.empty():
                events.append(await self._next())
            valid = [event for event, number in events if self._conversation.current(number)]
            for effect in self._core.handle(*valid, now=loop.time()):
                self._perform(effect)
        return self._exit_code

    async def _next(self) -> tuple[ev.Event, int | None]:
        item = await self._queue.get()
        if isinstance(item, BaseException):
            raise item
        return item

    def _post_of(self, event: ev.Event, connection: int) -> None:
        self._queue.put_nowait((event, connection))

    def _stop(self) -> None:
        if self._core.leaving:
            self._queue.put_nowait(KeyboardInterrupt("told to stop twice"))
        log.info("stopping: what runs is killed and reported")
        self.post(ev.StopAsked(STOP_SECONDS))

    async def _watch_clock(self) -> None:
        while True:
            await asyncio.sleep(CLOCK_LOOK_SECONDS)
            jump = time.time() - time.monotonic() - self._clock_offset
            if abs(jump) > CLOCK_JUMP_SECONDS:
                self.clock_was_set()
                self.post(ev.ClockJumped(jump))

    # ----- effects

    def _perform(self, effect: do.Effect) -> None:
        match effect:
            case do.Connect() | do.Disconnect() | do.RenewToken() | do.SendFrame():
                self._converse(effect)
            case do.SpoolReport() | do.DropReport() | do.KeepUnfinished():
                self._keep(effect)
            case do.SetTimer() | do.Measure() | do.Finish() | do.Note():
                self._own(effect)
            case do.TellLauncher():
                self._host.tell(effect.message)
            case do.KeepReceipts():
                self._host.keep_receipts(effect.receipts)
            case _:
                self._work(effect)

    def _converse(self, effect: do.LinkEffect) -> None:
        match effect:
            case do.Connect():
                self._conversation.connect(effect.renew)
            case do.Disconnect():
                self._conversation.disconnect()
            case do.RenewToken():
                self._conversation.renew()
            case do.SendFrame():
                self._conversation.send(effect.frame)
            case _:
                assert_never(effect)

    def _work(self, effect: do.WorkEffect) -> None:
        match effect:
            case do.StageIn():
                self._workshop.stage_in(effect.offer)
            case do.StartPayload():
                self._workshop.start(effect.offer)
            case do.Kill():
                self._workshop.kill(effect)
            case do.StageOut():
                self._workshop.stage_out(effect.offer)
            case do.StopStaging():
                self._workshop.stop_staging(effect.key)
            case do.CleanUp():
                self._workshop.clean_up(effect.key)
            case do.UseLinks():
                self._workshop.use_links(effect.links)
            case _:
                assert_never(effect)

    def _keep(self, effect: do.SpoolEffect) -> None:
        match effect:
            case do.SpoolReport():
                key = ev.Key(effect.report.job, effect.report.attempt)
                self.post(ev.ReportSpooled(key, self._spooled(effect)))
            case do.DropReport():
                self._spool.drop(effect.key)
            case do.KeepUnfinished():
                self._keep_unfinished(effect)
            case _:
                assert_never(effect)

    def _spooled(self, effect: do.SpoolReport) -> str:
        """What went wrong; empty if nothing did."""
        try:
            self._spool.keep(effect.report)
        except OSError as error:
            return str(error)
        return ""

    def _keep_unfinished(self, effect: do.KeepUnfinished) -> None:
        try:
            self._spool.keep_unfinished(effect.keys)
        except OSError as error:
            log.error("cannot note what is held: %s", error)

    def _own(self, effect: do.OwnEffect) -> None:
        match effect:
            case do.SetTimer():
                self._set_timer(effect.at)
            case do.Measure():
                self.post(self._workshop.measure())
            case do.Finish():
                self._exit_code = effect.exit_code
            case do.Note():
                _note(effect)
            case _:
                assert_never(effect)

    def _set_timer(self, at: float | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if at is not None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_at(at, self.post, ev.Tick())


def _note(note: do.Note) -> None:
    level = logging.getLevelNamesMapping()[note.level.upper()]
    if note.key is None:
        log.log(level, "%s", note.message)
    else:
        extra = {"job": note.key.job, "attempt": note.key.attempt}
        log.log(level, "%s: %s", note.key, note.message, extra=extra)
