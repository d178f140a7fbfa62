"""The task while its VM runs: hears the client, looks at the VM, does what the core decides."""

import asyncio
import logging
import time
from collections.abc import Callable

from copilot_agent.protocol.errors import CopilotError
from vm_launcher.assembly import Assembled
from vm_launcher.boinc.client import (
    Client,
    ClientEvent,
    ClientGone,
    MemoryLimit,
    NetworkSwitched,
    Ordered,
    TrickleDown,
)
from vm_launcher.boinc.errors import TrickleError
from vm_launcher.boinc.init_data import InitData
from vm_launcher.boinc.messages import AppStatus, Order
from vm_launcher.boinc.notebook import Notebook
from vm_launcher.boinc.preferences import Bounds
from vm_launcher.boinc.slot import Slot
from vm_launcher.core import task_events as ev
from vm_launcher.core.events import End, Outcome, Say
from vm_launcher.core.task import Task
from vm_launcher.core.task_endings import ABORTED
from vm_launcher.receipts import ReceiptFile

log = logging.getLogger("vm_launcher")

RECEIPTS = "receipts"
"""Logical name of the output file: the receipts, one JSON object a line."""

VARIETY = "copilot_runtime"
"""By which a project's `trickle_credit` picks our trickles."""

FINISH_WORD = "<finish/>"
"""In a trickle-down: end with the jobs that run, please."""

_POLL_SECONDS = 0.1
_LOOK_SECONDS = 1.0
_LAST_WORDS_SECONDS = 2.0
_LAST_TRICKLE_SECONDS = 10.0
_NO_ROOM_SECONDS = 3600.0


class Play:
    def __init__(
        self,
        slot: Slot,
        data: InitData,
        client: Client,
        task: Task,
        made: Assembled,
        notebook: Notebook,
    ) -> None:
        self.bounds: Callable[[], Bounds]
        """Reads the volunteer's preferences anew."""
        self._slot = slot
        self._data = data
        self._client = client
        self._task = task
        self._made = made
        self._notebook = notebook
        self._next_look = 0.0
        self._next_note = 0.0
        self._noted_checkpoint = task.meter.checkpoint
        self._ending: ev.Ending | None = None
        self._aborted = False
        """When the VM had ended already."""
        self._quitting: set[asyncio.Task[None]] = set()
        """The loop itself would not keep them from being collected."""

    async def run(self) -> ev.Ending:
        """Until the VM has ended and the client knows what it has to; nothing of it runs then."""
        running = asyncio.create_task(self._made.launcher.run())
        try:
            while not running.done():
                await self._turn()
                await asyncio.wait([running], timeout=_POLL_SECONDS)
        finally:
            running.cancel()
            await asyncio.wait([running])
        error = running.exception()
        return await self._over(running.result() if error is None else _failed(error))

    def quit(self, reason: str) -> None:
        """Leave as if the client had said so."""
        quitting = asyncio.get_running_loop().create_task(self._handle(ev.Quit(reason)))
        self._quitting.add(quitting)
        quitting.add_done_callback(self._quitting.discard)

    async def _turn(self) -> None:
        for event in self._client.poll():
            await self._heard(event)
        now = time.monotonic()
        if now < self._next_look:
            return
        self._next_look = now + _LOOK_SECONDS
        await self._handle(ev.Looked(self._view(), time.time()))
        if not self._task.suspended:
            self._report(self._task.fraction)
        self._note(now)

    # What the client says

    async def _heard(self, event: ClientEvent) -> None:
        match event:
            case Ordered(order):
                log.info("the client says %s", order)
                await self._obey(order)
            case NetworkSwitched(suspended):
                log.info("network %s by the client", "switched off" if suspended else "allowed")
                self._made.egress.network_enabled = not suspended
            case TrickleDown(text) if FINISH_WORD in text:
                await self._handle(ev.FinishSoon())
            case TrickleDown(text):
                log.warning("a message of the project was not understood: %.200r", text)
            case ClientGone(reason):
                await self._handle(ev.Quit(reason))
            case MemoryLimit(limit):
                log.info("the client allows %.0f MiB of memory", limit / (1 << 20))

    async def _obey(self, order: Order) -> None:
        match order:
            case Order.SUSPEND:
                await self._handle(ev.Suspend())
            case Order.RESUME:
                await self._handle(ev.Resume())
            case Order.QUIT:
                await self._handle(ev.Quit("the BOINC client quits"))
            case Order.ABORT:
                await self._handle(ev.Abort())
            case Order.REREAD:
                await self._read_again()

    async def _read_again(self) -> None:
        try:
            granted = self.bounds()
        except CopilotError as error:
            log.warning("the new preferences are not used: %s", error.message)
            return
        await self._made.launcher.cpu.change(granted.cpu_percent)
        self._made.reporter.status.cpu_percent = granted.cpu_percent
        self._made.egress.bound(granted.bytes_per_second, granted.bytes_per_day)

    # What the core decides

    async def _handle(self, event: ev.TaskEvent) -> None:
        for effect in self._task.handle(event, time.monotonic()):
            await self._do(effect)

    async def _do(self, effect: ev.TaskEffect) -> None:
        match effect:
            case ev.AskVm(ask, reason):
                self._made.launcher.ask(ask, reason)
            case ev.HoldVm(held, sole):
                await self._made.launcher.cpu.hold(held, sole)
            case ev.Trickle(seconds, total):
                self._trickle(seconds, total)
            case Say(_, text):
                log.info("%s", text)
                self._made.reporter.say(text)
            case ev.Leave() | ev.Postpone() | ev.Finish():
                self._ending = effect

    def _trickle(self, seconds: float, total: float) -> None:
        body = f"<runtime>{seconds:.6f}</runtime>\n"
        try:
            self._client.trickle_up(VARIETY, body, mark=repr(total))
        except TrickleError as error:  # it goes with the next one
            log.warning("a trickle was not written: %s", error.message)
            self._task.progress.trickled_seconds = total - seconds

    # What the VM does

    def _view(self) -> ev.View:
        launcher, reporter = self._made.launcher, self._made.reporter
        status, seen = reporter.status, reporter.seen
        return ev.View(
            state=launcher.state,
            guest_state=status.guest_state,
            boot=launcher.boot,
            jobs_succeeded=status.jobs_succeeded,
            jobs_failed=status.jobs_failed,
            receipts=status.receipts,
            receipts_cpu_seconds=reporter.totals.cpu_seconds,
            cpu_seconds=None if seen is None else seen.cpu_seconds,
        )

    def _report(self, fraction: float) -> bool:
        meter, data = self._task.meter, self._data
        span = data.fraction_done_end - data.fraction_done_start
        status = AppStatus(
            cpu_seconds=meter.total,
            checkpoint_cpu_seconds=meter.checkpoint,
            fraction_done=data.fraction_done_start + fraction * span,
            other_pid=self._made.launcher.vm_pid,
        )
        return self._client.report(status)

    def _note(self, now: float) -> None:
        """As often as the volunteer lets tasks write to disk, and at checkpoints."""
        checkpoint = self._task.meter.checkpoint
        if now >= self._next_note or checkpoint != self._noted_checkpoint:
            self._next_note, self._noted_checkpoint = now + self._data.checkpoint_period, checkpoint
            self._notebook.write(self._task.progress)

    # The end

    async def _over(self, end: End) -> ev.Ending:
        if end.message:
            log.info("%s: %s", end.outcome, end.message)
        await self._handle(ev.Looked(self._view(), time.time()))
        await self._handle(ev.VmEnded(end))
        ending = self._ending
        assert ending is not None  # noqa: S101 - the core answers VmEnded with one
        self._notebook.write(self._task.progress)
        if isinstance(ending, ev.Finish):
            ending = await self._finish(ending)
        await self._last_words(ending)
        return ev.Leave(ABORTED) if self._aborted else ending

    async def _finish(self, finish: ev.Finish) -> ev.Ending:
        for effect in self._task.last_trickle(self._made.reporter.totals.cpu_seconds):
            await self._do(effect)
        await self._until(lambda: self._client.trickles_pending() == 0, _LAST_TRICKLE_SECONDS)
        if finish.status != 0:
            return finish
        try:
            await asyncio.to_thread(self._hand_in)
        except OSError as error:
            words = f"the receipts cannot be written: {error.strerror}"
            return ev.Postpone(_NO_ROOM_SECONDS, words, notice=True)
        return finish

    def _hand_in(self) -> None:
        """BOINC uploads what is there when the task has ended."""
        ReceiptFile(self._made.launcher.receipts_file).hand_in(self._slot.resolve(RECEIPTS))

    async def _last_words(self, ending: ev.Ending) -> None:
        """The last CPU time and checkpoint, which the client should read before we leave."""
        done = isinstance(ending, ev.Finish) and ending.status == 0
        fraction = 1.0 if done else self._task.fraction
        if await self._until(lambda: self._report(fraction), _LAST_WORDS_SECONDS):
            await self._until(self._client.reported, _LAST_WORDS_SECONDS)

    async def _until(self, true: Callable[[], bool], seconds: float) -> bool:
        """Whether it came true in time; the client is served meanwhile."""
        deadline = time.monotonic() + seconds
        while not true():
            if time.monotonic() >= deadline:
                return False
            for event in self._client.poll():
                if isinstance(event, Ordered) and event.order is Order.ABORT:
                    self._aborted = True
            if self._aborted:
                return False
            await asyncio.sleep(_POLL_SECONDS)
        return True


def _failed(error: BaseException) -> End:
    """A fault of the launcher's own: the VM is gone, but what it has earned is still handed in."""
    log.error("the launcher failed", exc_info=error)
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return End(Outcome.FAILED, f"the launcher failed: {error}", "report it to the project")
