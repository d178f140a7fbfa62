"""The launcher without BOINC: runs one VM until it is told to stop."""

import asyncio
import signal

from vm_launcher import control
from vm_launcher.assembly import Assembled, assemble
from vm_launcher.core.events import Ask, End, Outcome
from vm_launcher.core.states import State
from vm_launcher.report import Reporter
from vm_launcher.runtime import Launcher
from vm_launcher.settings import Settings
from vm_launcher.state import StateDirectory

_ASK_SECONDS = 60.0
_REACHED: dict[Ask, frozenset[State]] = {
    Ask.PAUSE: frozenset({State.PAUSED}),
    Ask.RESUME: frozenset({State.RUNNING, State.BOOTING}),
    Ask.SAVE: frozenset({State.SAVED}),
    Ask.STOP: frozenset({State.GONE}),
}


async def run(settings: Settings) -> End:
    """Raises `CopilotError` (or the image's error) for what is wrong before the first boot."""
    state = StateDirectory(settings.state)
    state.lock()
    try:
        building = asyncio.create_task(assemble(settings, state))
        signals = _Signals(building)
        await asyncio.wait([building])
        if building.cancelled():
            return End(Outcome.STOPPED, "told to end before the VM was started")
        made = building.result()
        launcher, reporter = made.launcher, made.reporter
        signals.launcher = launcher
        desk = _Desk(launcher, reporter)
        async with control.serve(state.control, desk.answer):
            end = await launcher.run()
            await desk.empty()
        reporter.status.pid = 0
        reporter.write()
        return end
    finally:
        state.unlock()


class _Signals:
    """SIGINT and SIGTERM. Once: the guest says good-bye, at most 5 s. Twice: at once.

    Before there is a VM, once is enough.
    """

    def __init__(self, building: asyncio.Task[Assembled]) -> None:
        self.launcher: Launcher | None = None
        self._building = building
        self._asked = False
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._come)

    def _come(self) -> None:
        if self.launcher is None:
            self._building.cancel()
            return
        ask = Ask.STOP_NOW if self._asked else Ask.STOP
        self._asked = True
        self.launcher.ask(ask, "the launcher was told to end")


class _Desk:
    """Answers the control socket; stays open until the last one has heard how it went."""

    def __init__(self, launcher: Launcher, reporter: Reporter) -> None:
        self._launcher = launcher
        self._reporter = reporter
        self._open = 0
        self._closed = asyncio.Condition()

    async def answer(self, request: control.Request) -> control.Answer:
        self._open += 1
        try:
            return await self._do(request)
        finally:
            self._open -= 1
            async with self._closed:
                self._closed.notify_all()

    async def empty(self) -> None:
        async with self._closed:
            await self._closed.wait_for(lambda: self._open == 0)

    async def _do(self, request: control.Request) -> control.Answer:
        if request.command != "status":
            ask = Ask(request.command)
            self._launcher.ask(ask, request.reason)
            reached = _REACHED.get(ask)
            if reached and not await self._launcher.wait_for(
                lambda state: state in reached, _ASK_SECONDS
            ):
                said = f"the VM is {self._launcher.state}"
                return control.Answer(ok=False, message=said, status=self._reporter.status)
        status = self._reporter.status
        return control.Answer(ok=True, message=f"the VM is {status.state}", status=status)
