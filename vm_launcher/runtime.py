"""The launcher's shell: runs the core's effects and feeds their results back as events.

Used by every mode (standalone now, BOINC later). One VM, one driver, one state directory.
"""

import asyncio
import contextlib
import errno
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path

from copilot_agent.protocol import guest
from copilot_agent.protocol.errors import CopilotError, ErrorCode
from copilot_agent.protocol.guest import NET_PORT
from copilot_agent.protocol.receipt import Receipt
from vm_launcher.channels.ctrl import ChannelDownError, HostChannel
from vm_launcher.channels.net import NetServer
from vm_launcher.core import events as ev
from vm_launcher.core.credit import CreditBook
from vm_launcher.core.states import Rules, State
from vm_launcher.core.vm import Vm
from vm_launcher.cpu_limit import CpuLimit
from vm_launcher.drivers.base import (
    Driver,
    DriverError,
    Handle,
    PortChanged,
    VmSpec,
)
from vm_launcher.egress import Egress
from vm_launcher.host_words import UsageNews, Voice, host_message
from vm_launcher.receipts import ReceiptFile, ReceiptsFullError, is_signed
from vm_launcher.report import Reporter
from vm_launcher.state import StateDirectory

log = logging.getLogger("vm_launcher")

_SAMPLE_SECONDS = 1.0


@dataclass(frozen=True)
class Parts:
    """What the launcher is built from; the mode (standalone, BOINC) puts it together."""

    driver: Driver
    spec: VmSpec
    """For the first accelerator; others differ in nothing else."""
    rules: Rules
    voice: Voice
    egress: Egress
    state: StateDirectory
    reporter: Reporter
    manager_keys: tuple[str, ...] = ()
    """Whose receipts are kept; all, if there is none."""


class Launcher:
    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._vm = Vm(parts.rules)
        self._events: asyncio.Queue[ev.Event] = asyncio.Queue()
        self._handle: Handle | None = None
        self._operations: asyncio.Queue[tuple[float, ev.Effect]] = asyncio.Queue()
        self._operation: asyncio.Task[None] | None = None
        self._asked_at = 0.0
        self._group: asyncio.TaskGroup
        self._tasks: set[asyncio.Task[None]] = set()
        self._channel: HostChannel | None = None
        self._untold = 0
        self._usage_news = UsageNews()
        self._net = NetServer(parts.spec.net_socket, parts.egress)
        self._receipts = ReceiptFile(parts.state.receipts)
        self._book = CreditBook(self._receipts.load())
        self.cpu = CpuLimit(parts.driver, parts.spec.cpu_percent)
        self._public_key = parts.voice.identity.public_key
        self._end: ev.End | None = None
        self._changed = asyncio.Condition()

    @property
    def state(self) -> State:
        return self._vm.state

    @property
    def receipts_file(self) -> Path:
        return self._parts.state.receipts

    @property
    def boot(self) -> int:
        return self._vm.boot

    @property
    def vm_pid(self) -> int | None:
        """Of the hypervisor's process, while there is one."""
        running = self._handle.process if self._handle is not None else None
        return running.pid if running is not None else None

    def ask(self, ask: ev.Ask, reason: str = "") -> None:
        self._events.put_nowait(ev.Asked(ask, reason))

    async def wait_for(self, reached: Callable[[State], bool], timeout: float) -> bool:
        """Whether the VM came to such a state in time; also when the launcher ends."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout), self._changed:
                await self._changed.wait_for(lambda: reached(self.state) or self._end is not None)
        return reached(self.state)

    async def run(self) -> ev.End:
        """Until the VM is saved or gone for good; nothing of it runs afterwards."""
        try:
            async with asyncio.TaskGroup() as group:
                self._group = group
                self._spawn(self._work())
                self._spawn(self._sample())
                await self._net.start()
                self._events.put_nowait(await self._reclaim())
                while self._end is None:
                    await self._step(await self._next_event())
                for task in tuple(self._tasks):
                    task.cancel()
            return self._end
        finally:
            await self._close_channel()
            await self._net.close()
            self._parts.reporter.network(self._parts.egress.snapshot())
            await self._leave_nothing()

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = self._group.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # Events

    async def _next_event(self) -> ev.Event:
        deadline = self._vm.deadline
        if deadline is None:
            return await self._events.get()
        try:
            async with asyncio.timeout(max(0.0, deadline - time.monotonic())):
                return await self._events.get()
        except TimeoutError:
            return ev.Tick()

    async def _step(self, event: ev.Event) -> None:
        before = self.state
        if isinstance(event, ev.Heard) and event.boot == self._vm.boot:
            self._parts.reporter.heard(event.message)
        for effect in self._vm.handle(event, time.monotonic()):
            await self._run_effect(effect)
        if self.state is not before:
            log.info("vm %s", self.state)
        self._parts.reporter.moved(self.state, self._vm.finishing, self._vm.boot)
        async with self._changed:
            self._changed.notify_all()

    async def _run_effect(self, effect: ev.Effect) -> None:
        match effect:
            case ev.Say(level, text):
                log.log(logging.getLevelName(level.upper()), "%s", text)
                self._parts.reporter.say(text)
            case ev.End(outcome, message):
                self._parts.reporter.ended(outcome, message)
                self._end = effect
            case ev.RenewNet(epoch):
                await self._net.reset(epoch)
            case ev.KeepReceipts(receipts):
                await self._keep(receipts)
            case ev.DestroyVm():
                await self._overtake()
                self._operations.put_nowait((time.monotonic(), effect))
            case ev.BootVm() | ev.PauseVm() | ev.ResumeVm() | ev.SaveVm() | ev.RestoreVm():
                self._operations.put_nowait((time.monotonic(), effect))
            case _:
                await self._tell(effect)

    # Words to the guest

    async def _tell(self, effect: ev.Effect) -> None:
        message = host_message(effect, self._parts.voice, self._vm.accelerator)
        if message is None or self._channel is None:
            return
        try:
            await self._channel.send(message)
        except ChannelDownError as error:
            if not self._untold:  # a guest that asks and does not read would fill the log
                log.warning("%s was not told to the guest: %s", message.type, error)
            self._untold += 1
        else:
            self._untold = 0

    async def _keep(self, receipts: tuple[Receipt, ...]) -> None:
        keys, own = self._parts.manager_keys, self._public_key
        mine = [one for one in receipts if one.statement.launcher == own and is_signed(one, keys)]
        fresh = self._book.add(mine)
        if fresh:
            try:
                await asyncio.to_thread(self._receipts.append, fresh)
            except (OSError, ReceiptsFullError) as error:
                log.error("receipts were not kept: %s", error)
                self._book.forget(fresh)
                return
            self._parts.reporter.credit(self._book.totals())
        # Those of others are answered too, or the guest would repeat them for ever.
        kept = guest.ReceiptsKept(ids=tuple(one.statement.id for one in receipts))
        if self._channel is not None:
            with contextlib.suppress(ChannelDownError):  # the guest repeats them
                await self._channel.send(kept)

    # The driver: one operation at a time

    async def _work(self) -> None:
        while True:
            self._asked_at, effect = await self._operations.get()
            self._operation = asyncio.create_task(self._operate(effect))
            await asyncio.wait([self._operation])
            if not self._operation.cancelled() and (error := self._operation.exception()):
                raise error

    async def _overtake(self) -> None:
        """A destroy does not wait for what is under way or queued before it."""
        while not self._operations.empty():
            self._operations.get_nowait()
        if self._operation is not None and not self._operation.done():
            self._operation.cancel()
            await asyncio.wait([self._operation])

    async def _operate(self, effect: ev.Effect) -> None:
        match effect:
            case ev.BootVm(boot, accelerator):
                await self._boot(boot, accelerator)
            case ev.RestoreVm(boot):
                await self._restore(boot)
            case ev.PauseVm():
                await self._simple(self._parts.driver.pause, ev.Paused())
            case ev.ResumeVm():
                await self._simple(self._parts.driver.resume, ev.Resumed())
            case ev.SaveVm():
                await self._save()
            case ev.DestroyVm():
                await self._destroy()
            case _:
                raise AssertionError(effect)

    async def _boot(self, boot: int, accelerator: str) -> None:
        driver, reporter = self._parts.driver, self._parts.reporter
        spec = self._parts.spec.model_copy(update={"accelerator": accelerator})
        reporter.booting(accelerator)
        try:
            self._set_handle(await driver.create(spec))
            reporter.starting()
            self._set_handle(await driver.start(self._known()))
        except (DriverError, OSError) as error:
            self._events.put_nowait(_boot_failed(error))
            return
        await self.cpu.apply()
        self._listen(boot)
        self._events.put_nowait(ev.Booted())

    async def _restore(self, boot: int) -> None:
        spec = self._parts.spec.model_copy(update={"accelerator": self._vm.accelerator})
        self._parts.reporter.booting(self._vm.accelerator)
        self._parts.reporter.starting()
        try:
            self._set_handle(await self._parts.driver.restore(self._known(), spec))
        except (DriverError, OSError) as error:
            self._events.put_nowait(ev.RestoreFailed(str(error)))
            return
        self._parts.reporter.restored()
        await self.cpu.apply()
        self._listen(boot)
        self._events.put_nowait(ev.Restored())

    async def _simple(self, call: Callable[[Handle], Awaitable[Handle]], result: ev.Event) -> None:
        try:
            self._set_handle(await call(self._known()))
        except DriverError as error:
            self._events.put_nowait(ev.VmOver(self._vm.boot, error.message))
            return
        self._tell_result(result)

    async def _save(self) -> None:
        try:
            self._set_handle(await self._parts.driver.save(self._known()))
        except (DriverError, OSError) as error:
            self._events.put_nowait(ev.SaveFailed(str(error)))
            return
        await self._look(self._known())
        self._tell_result(ev.Saved())

    def _tell_result(self, result: ev.Event) -> None:
        self._parts.reporter.took(result, time.monotonic() - self._asked_at)
        self._events.put_nowait(result)

    async def _destroy(self) -> None:
        await self._close_channel()
        handle = self._handle
        if handle is not None:
            await self._look(handle)
            self._parts.state.keep_console(handle)
            await self._parts.driver.destroy(handle)
            self._set_handle(None)
        self._events.put_nowait(ev.Destroyed())

    def _known(self) -> Handle:
        if self._handle is None:
            raise DriverError("there is no VM")
        return self._handle

    def _set_handle(self, handle: Handle | None) -> None:
        if handle != self._handle:
            self._handle = handle
            self.cpu.follow(handle)
            self._parts.state.keep_handle(handle)

    # What comes from the VM

    def _listen(self, boot: int) -> None:
        channel = HostChannel(self._parts.spec.ctrl_socket)
        self._channel = channel
        self._spawn(self._hear(boot, channel))
        self._spawn(self._watch(boot, self._known()))

    async def _hear(self, boot: int, channel: HostChannel) -> None:
        async for message in channel.messages():
            self._events.put_nowait(ev.Heard(boot, message))

    async def _watch(self, boot: int, handle: Handle) -> None:
        async for event in self._parts.driver.events(handle):
            if isinstance(event, PortChanged):
                if event.port == NET_PORT and not event.open:
                    await self._net.reset()
            else:
                self._events.put_nowait(ev.VmOver(boot, event.reason))

    async def _close_channel(self) -> None:
        if self._channel is not None:
            await self._channel.close()
            self._channel = None

    # Usage, for the status and for the guest

    async def _sample(self) -> None:
        while True:
            if self._handle is not None:
                await self._look(self._handle)
            if self.state is State.RUNNING:
                seen = self._parts.reporter.seen
                await self._usage_news.tell(self._channel, seen, time.monotonic())
            self._parts.reporter.network(self._parts.egress.snapshot())
            self._parts.reporter.write()
            await asyncio.sleep(_SAMPLE_SECONDS)

    async def _look(self, handle: Handle) -> None:
        with contextlib.suppress(DriverError, OSError):  # on its way out: the last look stays
            self._parts.reporter.usage(await self._parts.driver.usage(handle))

    # Start and end

    async def _reclaim(self) -> ev.Begin:
        """What an earlier run left: a saved VM is gone on with, anything else is removed."""
        found = self._parts.state.load_handle()
        if found is None:
            self._parts.state.remove_vm()
            return ev.Begin()
        self._handle, written = found
        self._parts.state.adopt(self._handle)
        if self._handle.saved is not None:
            return ev.Begin(saved=True, saved_seconds=max(0.0, time.time() - written))
        text = "an earlier launcher left a VM behind; it is removed"
        log.warning(text)
        self._parts.reporter.say(text)
        await self._parts.driver.destroy(self._handle)
        self._set_handle(None)
        return ev.Begin()

    async def _leave_nothing(self) -> None:
        """Also when `run` was cancelled or failed: no hypervisor outlives it."""
        handle = self._handle
        if handle is not None and handle.saved is None:
            with contextlib.suppress(CopilotError, OSError):
                await self._parts.driver.destroy(handle)
            self._set_handle(None)
        state = self._parts.state
        state.remove_sockets()
        if self._handle is None:
            state.remove_vm()
        if self._end is not None and self._end.outcome is not ev.Outcome.FAILED:
            state.console.unlink(missing_ok=True)


def _boot_failed(error: DriverError | OSError) -> ev.BootFailed:
    if isinstance(error, OSError):
        return ev.BootFailed(str(error), no_space=error.errno == errno.ENOSPC)
    return ev.BootFailed(str(error), error.remedy, error.code is ErrorCode.NO_SPACE)
