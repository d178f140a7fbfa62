"""Keeps real time, chance and threads out of the code that is simulated."""

import gc
import logging
import random
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from copilot_agent import identity
from copilot_agent.protocol import xmpp as protocol
from copilot_agent.transports import xmpp as transport
from tests.simulation.loop import EPOCH, Machine, Universe

PIECE_CHARACTERS = 500
"""Frames are short here, so that pieces have to be if some of them are to be cut up."""
_PACKAGES = ("copilot_agent.", "job_manager_adapter.", "vm_launcher.")


def _machine() -> Machine | None:
    return Universe.current


class MachineTime:
    """Stands where modules of ours have `time`: the clocks of the machine that runs."""

    CLOCK_REALTIME = time.CLOCK_REALTIME

    def time(self) -> float:
        machine = _machine()
        return machine.clock.time() if machine else EPOCH

    def monotonic(self) -> float:
        machine = _machine()
        return machine.clock.monotonic() if machine else 0.0

    perf_counter = process_time = monotonic

    def time_ns(self) -> int:
        return int(self.time() * 1e9)

    def monotonic_ns(self) -> int:
        return int(self.monotonic() * 1e9)


def _boot_id() -> str:
    machine = _machine()
    return getattr(machine, "boot", "") if machine else ""


class MachineChance:
    """Stands where the agent's carrier has `os`."""

    def urandom(self, size: int) -> bytes:
        machine = _machine()
        return machine.universe.random.randbytes(size) if machine else bytes(size)


class TraceHandler(logging.Handler):
    """Warnings of the real code go into the trace."""

    def __init__(self, universe: Universe) -> None:
        super().__init__(logging.WARNING)
        self._universe = universe

    def emit(self, record: logging.LogRecord) -> None:
        machine = _machine()
        name = machine.name if machine else "-"
        self._universe.note(name, f"log {record.levelname.lower()}: {record.getMessage()}")


def patch() -> None:
    """Once per process, after everything is imported."""
    clocks: Any = MachineTime()
    for name, module in list(sys.modules.items()):
        if name.startswith(_PACKAGES) and getattr(module, "time", None) is time:
            module.time = clocks  # type: ignore[attr-defined]
    identity.boot_id = _boot_id
    transport.__dict__["os"] = MachineChance()
    protocol.PIECE_CHARACTERS = PIECE_CHARACTERS
    warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)
    root = logging.getLogger()
    for handler in root.handlers[:]:
        root.removeHandler(handler)
    root.setLevel(logging.WARNING)
    gc.collect()
    gc.freeze()


@contextmanager
def isolated(universe: Universe, seed: int) -> Iterator[None]:
    """Chance is the seed's, garbage is collected at the end only, logs go to the trace."""
    random.seed(seed)
    collects = gc.isenabled()
    gc.disable()
    handler = TraceHandler(universe)
    logging.getLogger().addHandler(handler)
    try:
        yield
    finally:
        logging.getLogger().removeHandler(handler)
        if collects:
            gc.enable()


def bury() -> None:
    """Collects what dead machines left; their coroutines complain, and nobody is to hear it."""
    hook, sys.unraisablehook = sys.unraisablehook, lambda _: None
    level = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        gc.collect()
    finally:
        logging.disable(level)
        sys.unraisablehook = hook
