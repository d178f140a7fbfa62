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
        self._share = percent / 100
        self._task: asyncio.Task[None] | None = None

    def on(self) -> None:
        if self._share < 1 and self._task is None:
            self._task = asyncio.create_task(self._run())

    async def off(self) -> None:
        """Afterwards the process runs."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])

    async def _run(self) -> None:
        try:
            while True:
                await asyncio.sleep(PERIOD_SECONDS * self._share)
                self._send(signal.SIGSTOP)
                await asyncio.sleep(PERIOD_SECONDS * (1 - self._share))
                self._send(signal.SIGCONT)
        finally:
            self._send(signal.SIGCONT)

    def _send(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._pid, number)
