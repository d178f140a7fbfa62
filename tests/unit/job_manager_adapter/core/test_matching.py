from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from copilot_agent.protocol.job import Requirements
from job_manager_adapter.core.matching import Kind, Matcher, RequirementClass, Room


def klass(
    number: int, experiment: str = "lhc", cores: int = 1, **fields: object
) -> RequirementClass:
    need = Requirements.model_validate({"cores": cores, "memory_mib": 16, "disk_mib": 1, **fields})
    return RequirementClass(number, experiment, need)


def room(
    cores: int = 1, queue: int = 0, memory: int = 1000, platform: str = "linux/x86_64"
) -> Room:
    flags = frozenset({"avx2"})
    return Room(cores, memory, 1000, queue, cores, memory, 1000, platform, flags)


def test_the_highest_priority_goes_first_then_the_oldest() -> None:
    matcher = Matcher()
    matcher.add(klass(1), 0, 5, head=1)
    matcher.add(klass(2), 9, 1, head=50)
    matcher.add(klass(3), 0, 5, head=20)
    matcher.offer_room("p", room(cores=3))
    assert [pick.klass.id for pick in matcher.match("p")] == [2, 1, 1]


def test_experiments_take_turns() -> None:
    matcher = Matcher()
    matcher.add(klass(1, "lhc"), 5, 100, head=1)
    matcher.add(klass(2, "alice"), 0, 100, head=500)
    for number in range(10):
        matcher.offer_room(f"p{number}", room())
    shares = Counter(pick.klass.experiment for pick in matcher.match())
    assert shares == {"lhc": 5, "alice": 5}


def test_pilots_are_served_one_by_one() -> None:
    matcher = Matcher()
    matcher.offer_room("big", room(cores=4))
    matcher.offer_room("small", room(cores=1))
    matcher.add(klass(1), 0, 2, head=1)
    assert {pick.pilot for pick in matcher.match()} == {"big", "small"}


def test_what_does_not_fit_is_not_picked() -> None:
    matcher = Matcher()
    matcher.add(klass(1, cores=2), 0, 1, head=1)
    matcher.add(klass(2, platform="windows/x86_64"), 0, 1, head=1)
    matcher.add(klass(3, cpu_flags=("avx512f",)), 0, 1, head=1)
    matcher.add(klass(4, memory_mib=2000), 0, 1, head=1)
    matcher.offer_room("p", room(queue=5))
    assert matcher.match() == []
    matcher.add(klass(5, cpu_flags=("avx2",)), 0, 1, head=9)
    assert [pick.klass.id for pick in matcher.match()] == [5]


def test_the_window_is_only_for_jobs_that_could_ever_run() -> None:
    matcher = Matcher()
    matcher.add(klass(1, cores=2), 0, 9, head=1)
    matcher.offer_room("p", room(cores=2, queue=2))
    assert len(matcher.match("p")) == 3


def test_counters_survive_any_order_of_news() -> None:
    matcher = Matcher()
    matcher.add(klass(1), 0, -1, head=4)  # a cancel overtook the submission
    matcher.offer_room("p", room(cores=9))
    assert matcher.match() == []
    matcher.add(klass(1), 0, 3, head=1)
    assert len(matcher.match()) == 2
    assert matcher.waiting() == {}


shapes = st.tuples(st.integers(1, 4), st.integers(0, 3))


@settings(max_examples=150)
@given(
    pilots=st.lists(shapes, max_size=8),
    waiting=st.lists(
        st.tuples(st.integers(1, 5), st.integers(1, 3), st.integers(0, 2), st.integers(1, 6)),
        max_size=8,
    ),
)
def test_no_room_is_used_twice_and_none_is_left(
    pilots: list[tuple[int, int]], waiting: list[tuple[int, int, int, int]]
) -> None:
    matcher = Matcher()
    total: Counter[int] = Counter()
    known: dict[int, RequirementClass] = {}
    for number, cores, priority, count in waiting:
        one = known.setdefault(number, klass(number, f"e{number % 2}", cores))
        matcher.add(one, priority, count, head=number)
        total[number] += count
    for index, (cores, queue) in enumerate(pilots):
        matcher.offer_room(f"p{index}", room(cores, queue))
    picks = matcher.match()
    taken = Counter(pick.klass.id for pick in picks)
    assert all(taken[number] <= total[number] for number in taken)
    for index, (cores, queue) in enumerate(pilots):
        left = room(cores, queue)
        for pick in picks:
            if pick.pilot == f"p{index}":
                assert left.takes(pick.klass.requirements)
                left = left.less(pick.klass.requirements)
        for number, one in known.items():
            if total[number] > taken[number]:
                assert not left.takes(one.requirements)


def test_pilots_for_whom_there_was_nothing_are_fed_once_there_is() -> None:
    matcher = Matcher()
    for number in range(3):
        matcher.offer_room(f"p{number}", room(memory=100 + number))
    matcher.add(klass(1, memory_mib=900), 0, 5, head=1)
    assert matcher.match() == []
    assert matcher.match("p0") == []
    assert sum(matcher.rooms().values()) == 3
    matcher.add(klass(2, memory_mib=101), 0, 5, head=9)
    assert {pick.pilot for pick in matcher.match()} == {"p1", "p2"}


def test_hopeless_rooms_are_not_looked_at_for_each_job(monkeypatch: pytest.MonkeyPatch) -> None:
    matcher = Matcher()
    for number in range(1000):
        matcher.offer_room(f"p{number}", room(memory=100 + number))
    matcher.add(klass(1, memory_mib=5000), 0, 1, head=1)
    assert matcher.match() == []
    looks = 0

    def counted(_: Room) -> None:
        nonlocal looks
        looks += 1

    monkeypatch.setattr(Matcher, "_best", lambda self, room: counted(room))
    for number in range(20):
        matcher.add(klass(1, memory_mib=5000), 0, 1, head=2 + number)
        assert matcher.match() == []
    assert looks == 0


def test_an_idle_pilot_is_reserved_for_a_job_before_it_is_known_to_wait() -> None:
    matcher, need = Matcher(), klass(1)
    kind = Kind("lhc", need.requirements, 0)
    for name in "ab":
        matcher.offer_room(name, room())
    assert matcher.reserve(Counter([kind])) == []  # its class is not known yet
    matcher.add(need, 0, 1, head=1)
    assert [pick.pilot for pick in matcher.match()] == ["a"]
    assert [pick.pilot for pick in matcher.reserve(Counter([kind, kind]))] == ["b"]
    matcher.add(need, 0, 2, head=2)
    matcher.offer_room("c", room())
    matcher.offer_room("d", room())
    assert [pick.pilot for pick in matcher.match()] == ["c"]  # b has the other one


def test_nobody_is_reserved_for_what_does_not_fit() -> None:
    matcher, need = Matcher(), klass(1, cores=4)
    matcher.add(need, 0, 0, head=1)
    matcher.offer_room("small", room(cores=1))
    assert matcher.reserve(Counter([Kind("lhc", need.requirements, 0)])) == []
    assert matcher.room("small") == room(cores=1)


def test_a_pilot_for_some_experiments_gets_only_their_jobs() -> None:
    matcher = Matcher()
    matcher.add(klass(1, "alice"), 9, 1, head=1)
    matcher.add(klass(2, "lhc"), 0, 1, head=2)
    only_lhc = room(cores=2)._replace(experiments=frozenset({"lhc"}))
    assert matcher.has_job_for(only_lhc)
    matcher.offer_room("p", only_lhc)
    assert [pick.klass.experiment for pick in matcher.match("p")] == ["lhc"]
    assert not matcher.has_job_for(only_lhc)
    kind = Kind("alice", klass(1, "alice").requirements, 9)
    assert matcher.reserve(Counter([kind])) == [], "nor what is just being stored"
    matcher.offer_room("q", room())
    assert [pick.klass.experiment for pick in matcher.match("q")] == ["alice"]
