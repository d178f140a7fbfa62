"""Virtual time: one universe, machines with clocks and event loops of their own.

Nothing here waits. A machine's loop is an asyncio loop without a selector; the universe lets every
machine run its callbacks one by one and then jumps to the next timer or event. A machine that is
killed simply is not stepped any more: like a process after kill -9, none of its `finally` runs.
"""

import asyncio
import heapq
import itertools
import math
import random
from asyncio import events
from collections import deque
from collections.abc import Callable
from contextvars import Context, copy_context
from typing import Any

EPOCH = 1_700_000_000.0
"""Unix time when a universe begins."""
NUDGE = 1e-9
"""Machines wake so much after their timers, so that rounding never wakes one before."""

MOST_TURNS = 500_000


class Clock:
    """One machine's time: may stand still, and its wall clock may be set."""

    def __init__(self, universe: "Universe") -> None:
        self._universe = universe
        self._origin = universe.now - 1000.0
        self._stopped_at = 0.0
        self.stopped = False
        self.changes = 0
        """So that others see when times have moved against the universe's."""
        self.wall_offset = EPOCH + self._origin

    def monotonic(self) -> float:
        return (self._stopped_at if self.stopped else self._universe.now) - self._origin

    def time(self) -> float:
        return self.monotonic() + self.wall_offset

    def set(self, wall: float) -> None:
        self.wall_offset = wall - self.monotonic()

    def stop(self) -> None:
        if not self.stopped:
            self.stopped, self._stopped_at = True, self._universe.now
            self.changes += 1

    def go_on(self) -> None:
        if self.stopped:
            self.stopped = False
            self._origin += self._universe.now - self._stopped_at
            self.changes += 1

    def put_back(self, monotonic: float) -> None:
        """To an earlier reading, as a snapshot has it."""
        self._origin = self._universe.now - monotonic
        self.changes += 1

    def universal(self, monotonic: float) -> float:
        return monotonic + self._origin


class Handle:
    """What asyncio's own handles are, with less in them."""

    __slots__ = ("_when", "args", "callback", "context", "dead")

    def __init__(
        self,
        callback: Callable[..., object],
        args: tuple[Any, ...],
        context: Context | None,
        when: float = 0.0,
    ) -> None:
        self.callback = callback
        self.args = args
        self.context = context or copy_context()
        self._when = when
        self.dead = False

    def cancel(self) -> None:
        self.dead = True

    def cancelled(self) -> bool:
        return self.dead

    def when(self) -> float:
        return self._when


# Our own signatures are looser than those that serve callers; nobody is misled here.
# mypy: disable-error-code="override,assignment"


class MachineLoop(asyncio.AbstractEventLoop):
    """What asyncio needs of a loop, and no more; times are the machine's monotonic ones."""

    def __init__(self, machine: "Machine") -> None:
        self._machine = machine
        self._clock = machine.clock
        self.ready: deque[Handle] = deque()
        self._timers: list[tuple[float, int, Handle]] = []
        self._count = 0
        self._changes = -1
        self._due = math.inf

    def time(self) -> float:
        return self._clock.monotonic()

    def call_soon(
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> Handle:
        handle = Handle(callback, args, context)
        self.ready.append(handle)
        return handle

    call_soon_threadsafe = call_soon

    def call_later(
        self,
        delay: float,
        callback: Callable[..., object],
        *args: Any,
        context: Context | None = None,
    ) -> Handle:
        return self.call_at(self.time() + delay, callback, *args, context=context)

    def call_at(
        self,
        when: float,
        callback: Callable[..., object],
        *args: Any,
        context: Context | None = None,
    ) -> Handle:
        handle = Handle(callback, args, context, when)
        self._count += 1
        heapq.heappush(self._timers, (when, self._count, handle))
        if self._timers[0][2] is handle:
            self._changes = -1
        return handle

    def create_future(self) -> "asyncio.Future[Any]":
        return asyncio.Future(loop=self)

    def create_task(self, coro: Any, *, name: str | None = None, context: Any = None) -> Any:
        return asyncio.Task(coro, loop=self, name=name, context=context)

    def run_in_executor(self, executor: Any, func: Any, *args: Any) -> "asyncio.Future[Any]":
        """There are no threads: it is done at once."""
        future = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:  # noqa: BLE001 - goes to whoever awaits it
            future.set_exception(error)
        return future

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        if self._machine.alive:
            self._machine.universe.broken(self._machine.name, context)

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return True

    def is_closed(self) -> bool:
        return False

    def add_signal_handler(self, sig: int, callback: Any, *args: Any) -> None:
        """Nobody sends signals here."""

    def remove_signal_handler(self, sig: int) -> bool:
        return True

    # ----- for the universe

    def due(self) -> float:
        """When, in the universe's time, its next timer comes; never while its clock stands."""
        clock = self._clock
        if self._changes == clock.changes:
            return self._due
        timers = self._timers
        while timers and timers[0][2].dead:
            heapq.heappop(timers)
        self._changes = clock.changes
        idle = clock.stopped or not timers
        self._due = math.inf if idle else clock.universal(timers[0][0]) + NUDGE
        return self._due

    def collect(self) -> None:
        """Timers that are due become ready."""
        timers, until = self._timers, self._clock.monotonic()
        while timers and timers[0][0] <= until:
            handle = heapq.heappop(timers)[2]
            if not handle.dead:
                self.ready.append(handle)
        self._changes = -1

    def run(self, interrupts: list[Callable[[], object]]) -> None:
        """Its callbacks, until there are none or something cuts in."""
        ready = self.ready
        while ready and not interrupts:
            handle = ready.popleft()
            if not handle.dead:
                try:
                    handle.context.run(handle.callback, *handle.args)
                except Exception as error:  # noqa: BLE001 - as a loop does it: told, and gone on
                    self.call_exception_handler({"message": "in a callback", "exception": error})


class Machine:
    """A process on a computer; `clock` may be shared with others on the same one."""

    def __init__(self, universe: "Universe", name: str, clock: Clock) -> None:
        self.universe = universe
        self.name = name
        self.clock = clock
        self.alive = True
        self.loop = MachineLoop(self)  # type: ignore[abstract]
        universe.machines.append(self)

    def call(self, callback: Callable[..., object], *args: Any) -> None:
        """From outside; lost if the machine is dead, late if it stands still."""
        if self.alive:
            self.loop.call_soon(callback, *args)

    def spawn(self, work: Any) -> Any:
        return self.loop.create_task(work)

    def kill(self) -> None:
        self.alive = False
        self.universe.machines.remove(self)
        self.universe.graveyard.append(self)


class Universe:
    """Everything that happens, in one order."""

    current: "Machine | None" = None
    """The machine whose callback runs, of whatever universe."""

    def __init__(self, seed: int) -> None:
        self.now = 0.0
        self.random = random.Random(seed)  # noqa: S311 - a schedule, not a secret
        self.machines: list[Machine] = []
        self.graveyard: list[Machine] = []
        self.trace: list[str] = []
        self.errors: list[str] = []
        self._events: list[tuple[float, int, Callable[..., object], tuple[Any, ...]]] = []
        self._count = itertools.count()
        self._interrupts: list[Callable[[], object]] = []

    def after(self, delay: float, action: Callable[..., object], *args: Any) -> None:
        heapq.heappush(self._events, (self.now + delay, next(self._count), action, args))

    def interrupt(self, action: Callable[[], object]) -> None:
        """Done before any machine runs its next callback."""
        self._interrupts.append(action)

    def note(self, who: str, what: str) -> None:
        self.trace.append(f"{self.now:11.4f} {who:10} {what}")

    def broken(self, who: str, context: dict[str, Any]) -> None:
        """Real code let an exception out that nobody expected."""
        error = context.get("exception")
        text = f"{context.get('message')}: {error!r}"
        self.note(who, f"BROKEN {text}")
        self.errors.append(f"{who}: {text}")

    def run(self, done: Callable[[], bool], limit: float) -> bool:
        """Until `done`; False if that is not so at time `limit`."""
        turns = 0
        while not done():
            turns += 1
            if turns > MOST_TURNS:
                raise RuntimeError(f"the world runs in circles at {self.now:.3f}")
            self._run_ready()
            due = self._next(limit)
            if due > limit:
                self.now = max(self.now, limit)
                return done()
            self.now = max(self.now, due)
            while self._events and self._events[0][0] <= self.now:
                _, _, action, args = heapq.heappop(self._events)
                action(*args)
            for machine in self.machines:
                if machine.loop.due() <= due:
                    machine.loop.collect()
        return True

    def _next(self, limit: float) -> float:
        """When something happens next."""
        due = self._events[0][0] if self._events else limit + 1.0
        for machine in self.machines:
            at = machine.loop.due()
            if at < due:
                due = at
        return due

    def _run_ready(self) -> None:
        """Whoever has something to do, the first one first, until nobody has."""
        while True:
            while self._interrupts:
                self._interrupts.pop(0)()
            for machine in self.machines:
                if machine.loop.ready and not machine.clock.stopped:
                    self._run(machine)
                    break
            else:
                return

    def _run(self, machine: Machine) -> None:
        events._set_running_loop(machine.loop)
        Universe.current = machine
        try:
            machine.loop.run(self._interrupts)
        finally:
            Universe.current = None
            events._set_running_loop(None)
