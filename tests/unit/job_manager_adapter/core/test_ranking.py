"""The matcher against one that simply looks at everything."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from copilot_agent.protocol.job import Requirements
from job_manager_adapter.core.matching import Matcher, Pick, RequirementClass, Room
from job_manager_adapter.core.ranking import Need, Ranking

NEEDS = [
    Requirements(cores=cores, memory_mib=memory, disk_mib=disk, platform=platform, cpu_flags=flags)
    for cores in (1, 2, 4)
    for memory in (100, 400, 900)
    for disk, platform, flags in (
        (1, "linux/x86_64", ()),
        (50, "linux/x86_64", ("avx2",)),
        (9, "linux/arm64", ()),
        (1, "linux/x86_64", ("avx2", "sse4")),
    )
]
CLASSES = [
    RequirementClass(number, f"e{number % 3}", need) for number, need in enumerate(NEEDS, start=1)
]


class Simple:
    """What waits as [class, priority, head, count], and experiments in the order of their turns."""

    def __init__(self) -> None:
        self.waiting: dict[tuple[int, int], list[int]] = {}
        self.turns: list[str] = []

    def add(self, klass: RequirementClass, priority: int, count: int, head: int) -> None:
        entry = self.waiting.setdefault((klass.id, priority), [head, 0])
        if count > 0:
            entry[0] = min(entry[0], head)
        entry[1] += count
        if entry[1] > 0 and klass.experiment not in self.turns:
            self.turns.append(klass.experiment)
        self._forget(klass, priority)

    def learn(self, klass: RequirementClass, priority: int, head: int) -> None:
        if entry := self.waiting.get((klass.id, priority)):
            entry[0] = max(entry[0], head)

    def fill(self, pilot: str, room: Room) -> list[Pick]:
        picks = []
        while not room.empty and (found := self._best(room)):
            klass, priority = found
            self.waiting[klass.id, priority][1] -= 1
            self.turns.remove(klass.experiment)
            self.turns.append(klass.experiment)
            self._forget(klass, priority)
            room = room.less(klass.requirements)
            picks.append(Pick(pilot, klass, priority))
        return picks

    def _best(self, room: Room) -> tuple[RequirementClass, int] | None:
        fitting = [
            (self.turns.index(klass.experiment), -priority, head, klass.id)
            for (number, priority), (head, count) in self.waiting.items()
            if count > 0 and room.takes((klass := CLASSES[number - 1]).requirements)
        ]
        if not fitting:
            return None
        _, minus_priority, _, number = min(fitting)
        return CLASSES[number - 1], -minus_priority

    def _forget(self, klass: RequirementClass, priority: int) -> None:
        if not self.waiting[klass.id, priority][1]:
            del self.waiting[klass.id, priority]
        experiments = {
            CLASSES[number - 1].experiment
            for (number, _), (_, count) in self.waiting.items()
            if count > 0
        }
        self.turns = [turn for turn in self.turns if turn in experiments]


def room(cores: int, queue: int, memory: int, flags: Sequence[str], platform: str) -> Room:
    return Room(cores, memory, 60, queue, cores + 1, memory * 2, 60, platform, frozenset(flags))


ROOMS = st.builds(
    room,
    st.integers(0, 5),
    st.integers(0, 2),
    st.sampled_from([50, 100, 500, 2000]),
    st.sampled_from([(), ("avx2",), ("avx2", "sse4", "bmi")]),
    st.sampled_from(["linux/x86_64", "linux/arm64"]),
)
PLACES = st.tuples(st.sampled_from(CLASSES), st.integers(0, 2))
STEPS = st.one_of(
    st.tuples(st.just("add"), PLACES, st.integers(-2, 5), st.integers(1, 50)),
    st.tuples(st.just("learn"), PLACES, st.integers(0, 0), st.integers(1, 60)),
    st.tuples(st.just("fill"), ROOMS),
)


@settings(max_examples=300)
@given(steps=st.lists(STEPS, max_size=60))
def test_it_picks_what_a_look_at_everything_would_pick(steps: list[tuple[Any, ...]]) -> None:
    matcher, simple = Matcher(), Simple()
    for number, (kind, what, *more) in enumerate(steps):
        if kind == "fill":
            pilot = f"p{number % 7}"
            room = matcher.room(pilot) if number % 2 else None  # it still has what it had, or moves
            if room is None:
                room = what
                matcher.offer_room(pilot, room)
            assert matcher.match(pilot) == simple.fill(pilot, room)
        elif kind == "learn":
            (klass, priority), head = what, more[1]
            matcher.learn(klass, priority, head)
            simple.learn(klass, priority, head)
        elif more[0]:
            matcher.add(*what, *more)
            simple.add(*what, *more)
    expected: Counter[str] = Counter()
    for (number, _), (_, count) in simple.waiting.items():
        expected[CLASSES[number - 1].experiment] += max(count, 0)
    assert matcher.waiting() == +expected


def test_a_thousand_needs_are_not_all_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """999 better ranked ones do not fit; counted, not timed."""
    looks = 0
    within = Need.within

    def counted(self: Need, limits: Need) -> bool:
        nonlocal looks
        looks += 1
        return within(self, limits)

    ranking = Ranking()
    for number in range(1000):
        need = Need("linux/x86_64", frozenset(), 1 + number % 4, 5000 - number, 100)
        ranking.put((number, 0), need, (0, number, number))
    monkeypatch.setattr(Need, "within", counted)
    assert ranking.best(Need("linux/x86_64", frozenset(), 4, 4001, 100)) == (999, 0)
    assert looks < 100


def test_keys_that_come_and_go_take_no_space() -> None:
    ranking = Ranking()
    need = Need("linux/x86_64", frozenset(), 1, 100, 100)
    for number in range(10_000):
        ranking.put((number, 0), need, (0, number, number))
        if number >= 5:
            ranking.drop((number - 5, 0))
    assert ranking.best(need) == (9995, 0)
    assert ranking._size <= 32
