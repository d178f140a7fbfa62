from hypothesis import given, settings
from hypothesis import strategies as st

from copilot_agent.protocol.job import Requirements
from job_manager_adapter.core.leases import Lease, Leases
from job_manager_adapter.core.matching import RequirementClass

KLASS = RequirementClass(1, "lhc", Requirements())


def lease(job: str, deadline: float) -> Lease:
    return Lease(
        job=job,
        attempt=1,
        pilot="p",
        klass=KLASS,
        priority=0,
        since=0.0,
        leased_at=0.0,
        deadline=deadline,
        pause_seconds=100.0,
    )


def test_renewal_moves_the_end_in_both_directions() -> None:
    leases = Leases()
    one = lease("a", 10)
    leases.add(one)
    assert leases.renew(one, 5, 100)
    assert leases.expired(50) == []
    assert leases.renew(one, 50, 60)  # a pause is over: the shorter term counts
    assert leases.expired(60) == [one]


def test_what_ran_out_is_named_until_it_is_dealt_with() -> None:
    leases = Leases()
    one = lease("a", 10)
    leases.add(one)
    assert leases.expired(11) == [one] and leases.expired(12) == [one]


def test_a_renewal_that_comes_too_late_revives_nothing() -> None:
    leases = Leases()
    one = lease("a", 10)
    leases.add(one)
    assert leases.renew(one, 9.9, 20)
    assert not leases.renew(one, 20, 30)
    assert leases.expired(20) == [one]


def test_what_nobody_could_hear_is_not_counted() -> None:
    leases = Leases()
    one, two = lease("a", 10), lease("b", 12)
    leases.add(one)
    leases.add(two)
    leases.prolong(5)
    assert leases.expired(14.9) == [] and leases.expired(15) == [one]
    assert leases.renew(two, 16, 30)


def test_a_dropped_lease_does_not_expire() -> None:
    leases = Leases()
    leases.add(lease("a", 10))
    leases.drop(("a", 1))
    assert leases.expired(99) == [] and len(leases) == 0


steps = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.integers(0, 5), st.integers(1, 20)),
        st.tuples(st.just("renew"), st.integers(0, 5), st.integers(1, 20)),
        st.tuples(st.just("drop"), st.integers(0, 5), st.just(0)),
        st.tuples(st.just("wait"), st.integers(1, 8), st.just(0)),
    ),
    max_size=60,
)


@settings(max_examples=200)
@given(steps=steps)
def test_exactly_what_ran_out_expires(steps: list[tuple[str, int, int]]) -> None:
    leases, model, now = Leases(), dict[str, Lease](), 0.0
    for what, number, more in steps:
        job = str(number)
        if what == "add" and job not in model:
            model[job] = lease(job, now + more)
            leases.add(model[job])
        elif what == "renew" and job in model:
            assert leases.renew(model[job], now, now + more)
        elif what == "drop" and job in model:
            leases.drop(model.pop(job).key)
        elif what == "wait":
            now += number
            due = {one.job for one in model.values() if one.deadline <= now}
            assert {one.job for one in leases.expired(now)} == due
            for job in due:
                leases.drop(model.pop(job).key)


def test_the_past_takes_no_memory() -> None:
    leases = Leases()
    stays = lease("stays", 500)
    leases.add(stays)
    for number in range(10_000):
        leases.add(lease(f"j{number}", 300))
        leases.drop((f"j{number}", 1))
        leases.renew(stays, 0, 600)
        leases.renew(stays, 0, 400)
    assert len(leases._heap) < 2_000
    assert leases.expired(399) == [] and leases.expired(400) == [stays]
