"""What a bench is, and what it is given.

A bench called `cycles` is the module `tests/bench/cycles.py` (or package) with

    NAME = "cycles"                       # also the beginning of its results' names
    DESCRIPTION = "durable job cycles"    # one line for --list
    SECONDS = 120                         # optional: stopped after that long (default 180)

    async def run(frame: Frame) -> list[Result]: ...

It is found by having NAME and run; nothing has to be registered. Each bench runs in a process of
its own with nothing before it, so that its memory and its open files are its own. It starts what
it needs (`tests.harness.programs`), and stops it again when it is cancelled.
"""

import importlib
import pkgutil
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar, cast

import tests.bench
from tests.bench.results import Result

SECONDS = 180.0
ORDER = ("peers", "cycles", "latency", "idle", "wake", "heartbeats", "depth", "fleet", "restart")
"""These first; what stands beside each other should be measured soon after each other."""

T = TypeVar("T")


@dataclass(frozen=True)
class Frame:
    """What a bench is given."""

    root: Path
    """An empty directory of its own, removed afterwards."""
    out: Path
    """Where results go; what one bench leaves here others of the same run can read."""
    run: str
    """Names this run of the command, see `out`."""
    quick: bool
    """Tiny sizes, which only show that the bench works; without peers, which need installing."""
    say: Callable[[str], None]
    """Shows one line of progress."""

    def pick(self, full: T, quick: T) -> T:
        return quick if self.quick else full


@dataclass(frozen=True)
class Bench:
    name: str
    description: str
    seconds: float
    run: Callable[[Frame], Coroutine[Any, Any, list[Result]]]


def benches() -> tuple[Bench, ...]:
    """All benches, in the order in which they run."""
    modules = (each.name for each in pkgutil.iter_modules(tests.bench.__path__))
    loaded = [_load(name) for name in modules if not name.startswith("_")]
    found = {bench.name: bench for bench in loaded if bench is not None}
    first = [found.pop(name) for name in ORDER if name in found]
    return (*first, *(found[name] for name in sorted(found)))


def find(name: str) -> Bench:
    """One bench; imports no other. Raises LookupError."""
    bench = _load(name) if find_spec(f"tests.bench.{name}") else None
    if bench is None or bench.name != name:
        raise LookupError(f"no bench called {name}")
    return bench


def _load(module: str) -> Bench | None:
    """None: the module is no bench. One that cannot be imported becomes a bench that fails."""
    try:
        loaded = cast(Any, importlib.import_module(f"tests.bench.{module}"))
    except (ImportError, NameError, AttributeError, SyntaxError) as error:
        return Bench(module, f"cannot be imported: {error}", SECONDS, _fails(error))
    if not (hasattr(loaded, "NAME") and hasattr(loaded, "run")):
        return None
    seconds = float(getattr(loaded, "SECONDS", SECONDS))
    return Bench(loaded.NAME, loaded.DESCRIPTION, seconds, loaded.run)


def _fails(error: Exception) -> Callable[[Frame], Coroutine[Any, Any, list[Result]]]:
    async def run(frame: Frame) -> list[Result]:
        raise error

    return run
