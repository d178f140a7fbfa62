"""The share of the processor that the VM may have, and short rests without a word to the guest."""

import contextlib

from vm_launcher.drivers.base import Driver, DriverError, Handle


class CpuLimit:
    """Keeps the wish while there is no VM to apply it to."""

    def __init__(self, driver: Driver, percent: int) -> None:
        self._driver = driver
        self._handle: Handle | None = None
        self._percent = percent
        self._held = self._sole = False

    @property
    def percent(self) -> int:
        return self._percent

    def follow(self, handle: Handle | None) -> None:
        """The VM from now on; None when there is none."""
        self._handle = handle

    async def change(self, percent: int) -> None:
        """Share of each core, 1 to 100."""
        self._percent = percent
        await self.apply()

    async def hold(self, held: bool, sole: bool = False) -> None:
        """Let the VM rest, and go on; if such rests are the `sole` limit, then without ours."""
        self._held, self._sole = held, sole
        await self.apply()

    async def apply(self) -> None:
        if self._handle is not None:
            percent = 0 if self._held else 100 if self._sole else self._percent
            with contextlib.suppress(DriverError):  # it does not run: asked again when it does
                await self._driver.limit(self._handle, percent)
