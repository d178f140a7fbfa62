"""The CPU limit: QEMU's process runs and rests in turn.

Needs no rights and works on every Unix. A stopped process costs nothing, and unlike QMP's stop
it leaves the guest's clocks right.
"""

import asyncio
import contextlib
import os
import signal

PERIOD_SECONDS = 0.1


class DutyCycle:
    def __init__(self, pid: int, percent: int) -> None:
        self._pid = pid
        self._percent = percent
        self._wanted = False
        self._task: asyncio.Task[None] | None = None

    def on(self) -> None:
        self._wanted = True
        if self._percent < 100 and self._task is None:
            self._task = asyncio.create_task(self._run(self._percent / 100))

    async def off(self) -> None:
        """Afterwards the process runs."""
        self._wanted = False
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])

    async def change(self, percent: int) -> None:
        """To another share; with 0 the process rests until the next change."""
        wanted = self._wanted
        await self.off()
        self._percent = percent
        if wanted:
            self.on()

    async def _run(self, share: float) -> None:
        try:
            while True:
                if share:
                    await asyncio.sleep(PERIOD_SECONDS * share)
                self._send(signal.SIGSTOP)
                await asyncio.sleep(PERIOD_SECONDS * (1 - share))
                if share:
                    self._send(signal.SIGCONT)
        finally:
            self._send(signal.SIGCONT)

    def _send(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._pid, number)
