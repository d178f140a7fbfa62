"""The network between each host and the manager.

A line carries connections (TCP) and exchanges (one HTTP request and its answer). What a connection
really does is modelled, and no more: bytes of one direction come in order, once and whole, or from
some point on not at all; a partition holds them back in one direction or both, and pings that are
not answered let each end give up by itself; a cut is learnt by each end in its own time, so frames
of an older connection may come in after a newer one was made. Exchanges are independent of each
other: they may overtake each other, get lost on the way there or back, and a middlebox may send a
request twice.
"""

from collections import deque
from collections.abc import Callable
from typing import Any

from tests.simulation.loop import Universe

UP, DOWN = "up", "down"
PATIENCE = {UP: (15.0, 45.0), DOWN: (10.0, 30.0)}
"""After so many seconds without a pong an end gives up, whose is the receiving one."""


class Line:
    """Between one host and the manager."""

    def __init__(self, universe: Universe, name: str) -> None:
        self.universe = universe
        self.name = name
        self.sockets_pass = True
        """False: a proxy on the way knows no WebSockets."""
        self.blocked = {UP: False, DOWN: False}
        self.slowness = 1.0
        self.loss = 0.0
        self.twice = 0.0
        self.pipes: list[Pipe] = []
        self._waiting: dict[str, list[Callable[[], object]]] = {UP: [], DOWN: []}
        self._partitions = 0

    def delay(self) -> float:
        chance = self.universe.random
        return chance.uniform(0.005, 0.04) * (self.slowness if chance.random() < 0.5 else 1.0)

    def pass_on(self, direction: str, action: Callable[[], object]) -> None:
        """After the delay, and not before a partition ends."""

        def arrive() -> None:
            if self.blocked[direction]:
                self._waiting[direction].append(action)
            else:
                action()

        self.universe.after(self.delay(), arrive)

    def partition(self, directions: tuple[str, ...]) -> None:
        for direction in directions:
            self.blocked[direction] = True
        self._partitions += 1
        for pipe in self.pipes[:]:
            self.silence(pipe, lambda number=self._partitions: self._still(number))  # type: ignore[misc]

    def _still(self, number: int) -> bool:
        return number == self._partitions and any(self.blocked.values())

    def silence(self, pipe: "Pipe", lasts: Callable[[], bool]) -> None:
        """No pong comes while `lasts`: each end gives the connection up after a while."""
        if pipe.patience is not None:
            wait = self.universe.random.uniform(*pipe.patience)
            self.universe.after(wait, lambda: pipe.given_up() if lasts() else None)

    def heal(self) -> None:
        self._partitions += 1
        for direction in (UP, DOWN):
            self.blocked[direction] = False
            waiting, self._waiting[direction] = self._waiting[direction], []
            for action in waiting:
                self.pass_on(direction, action)

    def cut(self) -> None:
        """Every connection breaks; what is on its way is lost, each end learns it by itself."""
        for pipe in self.pipes[:]:
            pipe.cut(self.universe.random.choice((0.01, 0.5, 5.0)))


class Pipe:
    """One direction of a connection. `None` is its end, when nothing more comes.

    `patience`: between how many seconds the receiving end gives up; None: never by itself.
    """

    def __init__(
        self,
        line: Line,
        direction: str,
        deliver: Callable[[Any], object],
        patience: tuple[float, float] | None,
    ) -> None:
        self.line = line
        self.direction = direction
        self.patience = patience
        self._deliver = deliver
        self._items: deque[Any] = deque()
        self._last = 0.0
        self._over = False
        line.pipes.append(self)

    def send(self, item: Any) -> None:
        if self._over:
            return
        universe = self.line.universe
        self._items.append(item)
        self._last = max(self._last, universe.now + self.line.delay())
        wait = self._last - universe.now
        universe.after(wait, self._arrived)

    def _arrived(self) -> None:
        if self.line.blocked[self.direction]:
            self.line._waiting[self.direction].append(self._arrived)
        elif self._items and not self._over:
            item = self._items.popleft()
            if item is None:
                self._finish()
            self._deliver(item)

    def lose_some(self) -> None:
        """Of what was sent last: its process died before the system had it."""
        for _ in range(self.line.universe.random.randrange(3)):
            if self._items and self._items[-1] is not None:
                self._items.pop()

    def given_up(self) -> None:
        """By the receiving end: the other one does not answer."""
        if not self._over:
            self._finish()
            self._deliver(None)

    def cut(self, learnt_after: float) -> None:
        if self._over:
            return
        self._finish()
        self.line.universe.after(learnt_after, self._deliver, None)

    def _finish(self) -> None:
        self._over = True
        self._items.clear()
        if self in self.line.pipes:
            self.line.pipes.remove(self)
