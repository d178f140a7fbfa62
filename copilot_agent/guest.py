"""An agent inside a virtual machine: everything it needs comes from the launcher by `ctrl`."""

import asyncio
import logging
import os
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import assert_never

from copilot_agent import logs
from copilot_agent.assembly import build, prepare
from copilot_agent.boot import Arrival, next_epoch
from copilot_agent.busy import busy_seconds
from copilot_agent.core import events as ev
from copilot_agent.core.cpu_claim import Reading
from copilot_agent.host_channel.ctrl import GuestChannel
from copilot_agent.host_channel.forward import Forward
from copilot_agent.host_channel.net import NetChannel
from copilot_agent.host_channel.ports import Port
from copilot_agent.host_channel.proxy import Proxy
from copilot_agent.identity import Voucher
from copilot_agent.payload.starter import Starter
from copilot_agent.probe import Given
from copilot_agent.protocol.base import split_host_port
from copilot_agent.protocol.guest import (
    Drain,
    Enrolment,
    GuestMessage,
    HostMessage,
    Log,
    PauseSoon,
    Ready,
    Receipts,
    ReceiptsKept,
    Resumed,
    Stop,
    VmUsage,
    Welcome,
)
from copilot_agent.protocol.receipt import Receipt
from copilot_agent.runtime import Runtime
from copilot_agent.settings import Carrier, PayloadUser, Settings
from copilot_agent.transports.connections import open_session
from copilot_agent.version import VERSION

log = logging.getLogger(__name__)

SCRATCH = Path("/scratch")
PAYLOAD_USER = PayloadUser(1000, 1000)
CLOCK_TOLERANCE_SECONDS = 0.5
VOUCH_SECONDS = 20.0
RECEIPTS_IN_MESSAGE = 100
MAX_UNSENT = 1000


def set_system_clock(wall_time: float) -> None:
    try:
        time.clock_settime(time.CLOCK_REALTIME, wall_time)
    except OSError as error:
        log.error("cannot set the clock: %s", error)


class Guest:
    """The launcher's side of an agent: hears its messages, tells it what the core wants told."""

    def __init__(
        self,
        port: Port,
        net: NetChannel,
        directory: Path,
        *,
        epoch: int,
        scratch: Path = SCRATCH,
        starter: Starter,
        arrival: Arrival | None = None,
        set_clock: Callable[[float], None] = set_system_clock,
        busy: Callable[[], float] = busy_seconds,
    ) -> None:
        self._directory = directory
        self._scratch = scratch
        self._arrival = arrival
        self._starter = starter
        self._set_system_clock = set_clock
        self._busy = busy
        self._channel = GuestChannel(
            port, agent_version=VERSION, epoch=epoch, on_renewed=self._renewed
        )
        self._net = net
        self._outbox: asyncio.Queue[GuestMessage] = asyncio.Queue()
        self._welcome: asyncio.Future[Welcome] = asyncio.get_running_loop().create_future()
        self._voucher: asyncio.Future[Voucher] = asyncio.get_running_loop().create_future()
        self._public_key = ""
        self._runtime: Runtime | None = None
        self._early: list[ev.Event] = []
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> int:
        """The exit code. What breaks in the background breaks the agent; it is started again."""
        await self._channel.start()
        await self._net.start()
        log_handler = logs.Forwarder(self._forward)
        logging.getLogger().addHandler(log_handler)
        try:
            async with asyncio.TaskGroup() as group:
                helpers = [group.create_task(self._listen()), group.create_task(self._speak())]
                code = await self._serve(await self._welcome)
                await self._outbox.join()
                for helper in helpers:
                    helper.cancel()
        finally:
            logging.getLogger().removeHandler(log_handler)
        return code

    async def _serve(self, welcome: Welcome) -> int:
        settings = Settings(
            manager=welcome.manager.rstrip("/"),
            state=self._directory,
            scratch=self._scratch,
            given=Given(
                welcome.cores,
                welcome.memory_mib or None,
                welcome.disk_mib or None,
                welcome.accelerator,
                welcome.image,
            ),
            window=welcome.window,
            payload_user=PAYLOAD_USER,
            ca_certificates=welcome.ca_certificates,
        )
        ground = prepare(settings, self._starter)
        async with AsyncExitStack() as stack:
            session = open_session(self._net, settings.ca_certificates)
            await stack.enter_async_context(session)
            if welcome.xmpp:
                forward = Forward(self._net.dial, *split_host_port(welcome.xmpp))
                await stack.enter_async_context(forward)
                settings = replace(
                    settings, carriers=tuple(Carrier), xmpp_server=("127.0.0.1", forward.port)
                )
            runtime = build(
                settings,
                ground,
                session,
                self._vouch,
                lambda _: self,
                launcher=True,
                proxy=lambda: Proxy(self._net.dial),
            )
            self._runtime = runtime
            for event in self._early:
                runtime.post(event)
            return await runtime.run()

    # ----- the core's word to the launcher

    def tell(self, message: GuestMessage) -> None:
        if self._outbox.qsize() < MAX_UNSENT:
            self._outbox.put_nowait(message)

    def keep_receipts(self, receipts: tuple[Receipt, ...]) -> None:
        for first in range(0, len(receipts), RECEIPTS_IN_MESSAGE):
            self.tell(Receipts(receipts=receipts[first : first + RECEIPTS_IN_MESSAGE]))

    def _forward(self, level: str, line: str) -> None:
        self.tell(Log(level="error" if level == "error" else "warning", message=line))

    async def _speak(self) -> None:
        while True:
            await self._channel.send(await self._outbox.get())
            self._outbox.task_done()

    # ----- the launcher's word to the core

    async def _listen(self) -> None:
        async for message in self._channel.messages():
            await self._hear(message)

    async def _hear(self, message: HostMessage) -> None:
        match message:
            case VmUsage():
                self._host_used(message.cpu_seconds)
            case Welcome() | Enrolment() | Resumed():
                await self._hear_greeting(message)
            case ReceiptsKept():
                self._post(ev.ReceiptsKept(message.ids))
            case PauseSoon():
                self._post(ev.PauseSoon(message.seconds))
            case Drain():
                self._post(ev.DrainAsked(message.undo, message.deadline_seconds))
            case Stop():
                self._post(ev.StopAsked(message.seconds))
            case _:
                assert_never(message)

    async def _hear_greeting(self, message: Welcome | Enrolment | Resumed) -> None:
        match message:
            case Welcome():
                self._set_clock(message.time + self._delay())
                if not self._welcome.done():
                    self._welcome.set_result(message)
            case Enrolment():
                self._vouched(message)
            case Resumed():
                self._set_clock(message.time)
                self._host_used(None)
                epoch = next_epoch(self._directory, self._channel.epoch + 1)
                await self._channel.renew(epoch)
                await self._net.reset(epoch)
                self._post(ev.Resumed())
            case _:
                assert_never(message)

    def _host_used(self, cpu_seconds: float | None) -> None:
        """None: what comes next cannot be compared with what came before."""
        if self._runtime is not None:
            reading = None if cpu_seconds is None else Reading(cpu_seconds, self._busy())
            self._runtime.host_used(reading)

    def _renewed(self, epoch: int) -> None:
        """The launcher was away and is back, perhaps another one."""
        next_epoch(self._directory, epoch)
        task = asyncio.create_task(self._net.reset(epoch))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        if self._public_key:
            self.tell(Ready(pilot_key=self._public_key, memory_bytes=_resident_bytes()))
        self._post(ev.Resumed())

    def _post(self, event: ev.Event) -> None:
        if self._runtime is None:
            self._early.append(event)
        else:
            self._runtime.post(event)

    # ----- enrolment

    async def _vouch(self, pilot_key: str) -> Voucher:
        if pilot_key != self._public_key and self._voucher.done():
            self._voucher = asyncio.get_running_loop().create_future()  # that was for another key
        self._public_key = pilot_key
        while True:
            self.tell(Ready(pilot_key=pilot_key, memory_bytes=_resident_bytes()))
            try:
                async with asyncio.timeout(VOUCH_SECONDS):
                    return await asyncio.shield(self._voucher)
            except TimeoutError:
                log.warning("the launcher has not vouched for this pilot yet; asking again")

    def _vouched(self, message: Enrolment) -> None:
        if self._voucher.done():
            self._voucher = asyncio.get_running_loop().create_future()
        self._voucher.set_result(
            Voucher(
                secret=message.secret,
                launcher_key=message.launcher_key,
                signature=message.signature,
            )
        )

    def _delay(self) -> float:
        """How long ago the first welcome came; later ones are heard at once."""
        arrival, self._arrival = self._arrival, None
        if arrival is None or arrival.monotonic is None:
            return 0.0
        return time.monotonic() - arrival.monotonic

    def _set_clock(self, host_time: float) -> None:
        """The guest has no other source of time."""
        if abs(time.time() - host_time) > CLOCK_TOLERANCE_SECONDS:
            self._set_system_clock(host_time)
        if self._runtime is not None:
            self._runtime.clock_was_set()


def _resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def main(port: Port, epoch: int, directory: Path, arrival: Arrival, starter: Starter) -> int:
    """Stays after a clean end until the launcher stops the guest: init would start it again."""
    logs.set_up("text")
    code = asyncio.run(_run(port, epoch, directory, arrival, starter))
    while code in (0, 3):
        time.sleep(3600)
    return code


async def _run(port: Port, epoch: int, directory: Path, arrival: Arrival, starter: Starter) -> int:
    net = NetChannel(epoch)
    guest = Guest(port, net, directory, epoch=epoch, arrival=arrival, starter=starter)
    return await guest.run()
