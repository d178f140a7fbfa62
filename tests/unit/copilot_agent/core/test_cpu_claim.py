"""What a payload may claim of its CPU time in the guest."""

from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from copilot_agent.core.cpu_claim import CpuClaim, CpuShare, Reading

AMOUNT = st.floats(min_value=0, max_value=1e6)
COUNTER = st.floats(min_value=0, max_value=1e12)


class Account:
    """A share with the claims of some payloads, told as an agent tells them."""

    def __init__(self, payloads: int = 1) -> None:
        self.share = CpuShare()
        self.claims = [CpuClaim() for _ in range(payloads)]

    def read(self, host: float, busy: float, *guest: float) -> None:
        if self.share.read(Reading(host, busy)):
            for claim, seconds in zip(self.claims, guest, strict=True):
                claim.settle(seconds, self.share.part)

    def claimed(self, *guest: float) -> list[float]:
        part = self.share.part
        return [c.so_far(s, part) for c, s in zip(self.claims, guest, strict=True)]


def test_a_spinning_payload_at_two_fifths_claims_two_fifths() -> None:
    account = Account()
    for step in range(5):
        account.read(2.0 * step, 5.0 * step, 5.0 * step)
    assert account.claimed(20.0) == [pytest.approx(8.0)]


def test_without_readings_the_guests_own_account_stands() -> None:
    assert Account().claimed(41.0) == [41.0]


def test_one_reading_alone_says_nothing() -> None:
    account = Account()
    account.read(1.0, 100.0, 0.0)
    assert account.claimed(7.0) == [7.0]


def test_the_cost_of_emulation_earns_nothing_more() -> None:
    account = Account()
    account.read(0.0, 0.0, 0.0)
    account.read(8.0, 5.0, 5.0)
    assert account.claimed(5.0) == [5.0]


def test_payloads_side_by_side_share_what_the_host_gave() -> None:
    account = Account(payloads=2)
    account.read(0.0, 0.0, 0.0, 0.0)
    account.read(4.0, 8.0, 5.0, 3.0)
    assert account.claimed(5.0, 3.0) == [2.5, 1.5]


def test_each_span_counts_by_its_own_share() -> None:
    account = Account()
    account.read(0.0, 0.0, 0.0)
    account.read(5.0, 5.0, 5.0)
    account.read(6.0, 10.0, 10.0)
    assert account.claimed(10.0) == [pytest.approx(6.0)]


def test_a_payload_between_two_readings_claims_by_the_newest_share() -> None:
    account = Account()
    account.read(0.0, 0.0, 0.0)
    account.read(1.0, 4.0, 0.0)
    assert account.claimed(2.0) == [pytest.approx(0.5)]


def test_an_idle_span_tells_nothing_and_is_settled_with_the_next() -> None:
    account = Account()
    account.read(0.0, 0.0, 0.0)
    account.read(2.0, 4.0, 0.0)
    account.read(2.3, 4.3, 0.2)
    assert account.claimed(0.2) == [pytest.approx(0.1)]
    account.read(3.3, 8.3, 4.2)
    assert account.claimed(4.2) == [pytest.approx(1.05)]


def test_saving_and_restoring_the_vm_is_nobodys_work() -> None:
    account = Account()
    account.read(0.0, 0.0, 0.0)
    account.read(2.0, 5.0, 5.0)
    account.share.interrupt()
    account.read(9.0, 8.0, 8.0)
    account.read(11.0, 13.0, 13.0)
    assert account.claimed(13.0) == [pytest.approx(5.2)]


def test_a_counter_that_goes_back_begins_anew() -> None:
    account = Account()
    account.read(100.0, 100.0, 0.0)
    account.read(102.0, 105.0, 0.0)
    account.read(1.0, 110.0, 5.0)
    assert account.claimed(5.0) == [pytest.approx(2.0)]
    account.read(2.0, 120.0, 15.0)
    assert account.claimed(15.0) == [pytest.approx(1.5)]


@given(
    steps=st.lists(st.tuples(COUNTER, COUNTER, AMOUNT)),
    interrupted=st.lists(st.booleans()),
    rest=AMOUNT,
)
def test_whatever_the_launcher_says_no_claim_is_negative_or_above_the_guests_time(
    steps: list[tuple[float, float, float]], interrupted: list[bool], rest: float
) -> None:
    account, guest = Account(), 0.0
    for number, (host, busy, used) in enumerate(steps):
        guest += used
        account.read(host, busy, guest)
        if interrupted[number : number + 1] == [True]:
            account.share.interrupt()
        (claimed,) = account.claimed(guest)
        assert 0.0 <= claimed <= guest
    (claimed,) = account.claimed(guest + rest)
    assert 0.0 <= claimed <= guest + rest


@given(
    spans=st.lists(
        st.tuples(
            st.floats(min_value=0, max_value=100),
            st.floats(min_value=1, max_value=100),
            st.floats(min_value=0, max_value=1),
        ),
        min_size=1,
    )
)
def test_no_more_is_claimed_than_the_host_gave(spans: list[tuple[float, float, float]]) -> None:
    """The payload is a part of what kept the guest busy."""
    account = Account()
    account.read(0.0, 0.0, 0.0)
    host = list(accumulate(host for host, _, _ in spans))
    busy = list(accumulate(busy for _, busy, _ in spans))
    guest = list(accumulate(busy * part for _, busy, part in spans))
    for reading in zip(host, busy, guest, strict=True):
        account.read(*reading)
    assert account.claimed(guest[-1])[0] <= host[-1] * (1 + 1e-6) + 1e-6
