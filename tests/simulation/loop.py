"""Virtual time: one universe, machines with clocks and event loops of their own.

Nothing here waits. A machine's loop is an asyncio loop without a selector; the universe lets every
machine run its callbacks one by one and then jumps to the next event, be it that a machine's timer
is due. A machine that is killed simply is not stepped any more: like a process after kill -9, none
of its `finally` runs.
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

LOOK_SECONDS = 0.25
"""So often it is asked whether everything is done."""
MOST_TURNS = 500_000


class Clock:
    """One machine's time: may stand still, and its wall clock may be set."""

    def __init__(self, universe: "Universe") -> None:
        self._universe = universe
        self._origin = universe.now - 1000.0
        self._stopped_at = 0.0
        self.stopped = False
        self.loops: list[MachineLoop] = []
        """They are told when its times have moved against the universe's."""
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

    def go_on(self) -> None:
        if self.stopped:
            self.stopped = False
            self._origin += self._universe.now - self._stopped_at
            self._moved()

    def put_back(self, monotonic: float) -> None:
        """To an earlier reading, as a snapshot has it."""
        self._origin = self._universe.now - monotonic
        self._moved()

    def _moved(self) -> None:
        for loop in self.loops:
            loop.arm_anew()

    def universal(self, monotonic: float) -> float:
        return monotonic + self._origin


Ready = tuple[Context, Callable[..., object], tuple[Any, ...]]


class Handle:
    """What asyncio's own handles are, with less in them."""

    __slots__ = ("_when", "args", "callback", "context", "dead")

    def __init__(
        self, callback: Callable[..., object], args: tuple[Any, ...], when: float = 0.0
    ) -> None:
        self.callback = callback
        self.args = args
        self.context = copy_context()
        self._when = when
        self.dead = False

    def run(self) -> None:
        if not self.dead:
            self.callback(*self.args)

    def cancel(self) -> None:
        self.dead = True

    def cancelled(self) -> bool:
        return self.dead

    def when(self) -> float:
        return self._when


# Our own signatures are looser than those that serve callers; nobody is misled here.
# mypy: disable-error-code="override,assignment,method-assign"


class MachineLoop(asyncio.AbstractEventLoop):
    """What asyncio needs of a loop, and no more; times are the machine's monotonic ones."""

    def __init__(self, machine: "Machine") -> None:
        self._machine = machine
        self._clock = machine.clock
        self._clock.loops.append(self)
        self.time = machine.clock.monotonic
        self.ready: deque[Ready] = deque()
        self._timers: list[tuple[float, int, Handle]] = []
        self._count = 0
        self._armed = math.inf
        """When, in the universe's time, it wakes this loop."""

    def call_soon(
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> Handle | None:
        if context is not None:  # a task's or a future's, and those never cancel it
            self.ready.append((context, callback, args))
            return None
        handle = Handle(callback, args)
        self.ready.append((handle.context, handle.run, ()))
        return handle

    call_soon_threadsafe = call_soon

    def call_later(self, delay: float, callback: Callable[..., object], *args: Any) -> Handle:
        return self.call_at(self.time() + delay, callback, *args)

    def call_at(self, when: float, callback: Callable[..., object], *args: Any) -> Handle:
        handle = Handle(callback, args, when)
        self._count += 1
        heapq.heappush(self._timers, (when, self._count, handle))
        if self._timers[0][2] is handle:
            self._arm()
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

    # ----- timers

    def _arm(self) -> None:
        """Has the universe wake it for its next timer; not while its clock stands."""
        timers = self._timers
        while timers and timers[0][2].dead:
            heapq.heappop(timers)
        if timers and not self._clock.stopped:
            due = self._clock.universal(timers[0][0]) + NUDGE
            if due < self._armed:
                self._armed = due
                self._machine.universe.at(due, self._wake, due)

    def arm_anew(self) -> None:
        self._armed = math.inf
        self._arm()

    def _wake(self, due: float) -> None:
        """Timers that are due become ready."""
        if due != self._armed or not self._machine.alive:
            return  # another time has been set meanwhile
        self._armed = math.inf
        timers, until = self._timers, self.time()
        while timers and timers[0][0] <= until:
            handle = heapq.heappop(timers)[2]
            self.ready.append((handle.context, handle.run, ()))
        self._arm()

    # ----- for the universe

    def run(self, interrupts: list[Callable[[], object]]) -> None:
        """Its callbacks, until there are none or something cuts in."""
        ready = self.ready
        while ready and not interrupts:
            context, callback, args = ready.popleft()
            try:
                context.run(callback, *args)
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
        self._context = copy_context()
        universe.machines.append(self)

    def call(self, callback: Callable[..., object], *args: Any) -> None:
        """From outside; lost if the machine is dead, late if it stands still."""
        if self.alive:
            self.loop.ready.append((self._context, callback, args))

    def answer(self, future: "asyncio.Future[Any]", result: Any) -> None:
        """From outside, to one who may have been cancelled; an exception is raised there."""
        if not self.alive or future.done():
            return
        if isinstance(result, Exception):
            future.set_exception(result)
        else:
            future.set_result(result)

    def tell(self, queue: "asyncio.Queue[Any]", item: Any) -> None:
        """From outside."""
        if self.alive:
            queue.put_nowait(item)

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
        self._running: MachineLoop | None = None

    def at(self, time: float, action: Callable[..., object], *args: Any) -> None:
        heapq.heappush(self._events, (time, next(self._count), action, args))

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
        try:
            return self._run_until(done, limit)
        finally:
            self._set_running(None)

    def _run_until(self, done: Callable[[], bool], limit: float) -> bool:
        happening, look = self._events, self.now
        for _ in range(MOST_TURNS):
            if self.now >= look:
                if done():
                    return True
                look = self.now + LOOK_SECONDS
            self._run_ready()
            if not happening or happening[0][0] > limit:
                self.now = max(self.now, limit)
                return done()
            self.now = max(self.now, happening[0][0])
            while happening and happening[0][0] <= self.now:
                _, _, action, args = heapq.heappop(happening)
                action(*args)
        raise RuntimeError(f"the world runs in circles at {self.now:.3f}")

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
        if machine.loop is not self._running:
            self._set_running(machine.loop)
        Universe.current = machine
        try:
            machine.loop.run(self._interrupts)
        finally:
            Universe.current = None

    def _set_running(self, loop: MachineLoop | None) -> None:
        """For asyncio; it stays until another machine's turn, as that is dear."""
        self._running = loop
        events._set_running_loop(loop)
