"""The checker on ledgers of a few lines: what is right passes, what is wrong is named."""

from collections.abc import Callable
from typing import Any

import pytest

from copilot_agent.protocol.frames import Report, VerdictKind
from copilot_agent.protocol.job import JobState, Outcome
from job_manager_adapter.views import AttemptView, JobView
from tests.simulation.checker import check
from tests.simulation.ledger import Ledger, OfferSeen, Trouble, VerdictSeen, Word
from tests.simulation.loop import Universe
from tests.simulation.manager import LEASE
from tests.simulation.timing import check_times

JOB, HOST, OTHER = "j-00000000000000000001", "host1", "host2"


def ledger() -> Ledger:
    """A job that failed on the first host: it earns nothing, so no receipt is needed."""
    one = Ledger(Universe(0), hosts=[HOST, OTHER], serving=[0.0])
    one.asked[JOB] = one.submitted[JOB] = 1.0
    one.universe.now = 500.0
    one.offers.append(OfferSeen(2.0, HOST, JOB, 1))
    one.payload_started(HOST, JOB, 1)
    one.payloads[0].began, one.payloads[0].ended = 3.0, 8.0
    one.words[JOB, 1] += [Word(3.0, HOST, False), Word(9.0, HOST, False)]
    one.reports[JOB, 1].append((9.0, HOST, report()))
    one.verdicts.append(VerdictSeen(9.1, HOST, JOB, 1, VerdictKind.ACCEPTED))
    one.final[JOB] = view(JobState.FAILED)
    return one


def report(outcome: Outcome = Outcome.FAILED) -> Report:
    return Report(job=JOB, attempt=1, outcome=outcome)


def view(state: JobState) -> JobView:
    """With what the checker looks at."""
    tried: dict[str, Any] = {"attempt": 1, "state": "ended", "outcome": Outcome.FAILED}
    shown: dict[str, Any] = {"id": JOB, "state": state}
    attempt = AttemptView.model_construct(**tried)
    return JobView.model_construct(**shown, attempts=(attempt,))


def found(one: Ledger) -> set[str]:
    return {violation.invariant for violation in (*check(one, "A" * 43), *check_times(one))}


def test_a_good_ledger_passes() -> None:
    assert found(ledger()) == set()


def lost(one: Ledger) -> None:
    one.final.clear()


def left(one: Ledger) -> None:
    one.leases_left = 1


def changed(one: Ledger) -> None:
    one.finals_seen.append((20.0, JOB, JobState.CANCELLED))


def two_hosts(one: Ledger) -> None:
    one.offers.append(OfferSeen(2.5, OTHER, JOB, 1))


def again(one: Ledger) -> None:
    one.payload_started(OTHER, JOB, 1)
    one.payloads[-1].ended = 501.0


def stranger(one: Ledger) -> None:
    one.verdicts.append(VerdictSeen(9.2, OTHER, JOB, 1, VerdictKind.ACCEPTED))


def after_success(one: Ledger) -> None:
    one.reports[JOB, 1] = [(9.0, HOST, report(Outcome.SUCCEEDED))]
    one.offers.append(OfferSeen(30.0, OTHER, JOB, 2))


def runs_on(one: Ledger) -> None:
    one.cancels[JOB].append(4.0)
    one.payloads[0].ended = 60.0


def lost_early(one: Ledger) -> None:
    one.reports.clear()
    one.verdicts.clear()
    one.offers.append(OfferSeen(9.0 + LEASE / 2, OTHER, JOB, 2))


def revived(one: Ledger) -> None:
    word = 9.0 + LEASE + 1.0
    one.words[JOB, 1].append(Word(word, HOST, False))
    one.reports[JOB, 1] = [(word + 60.0, HOST, report())]


def waits(one: Ledger) -> None:
    one.submitted[JOB] = 1.0
    one.offers[0] = OfferSeen(100.0, HOST, JOB, 1)
    one.words.clear()


@pytest.mark.parametrize(
    ("wrong", "invariant"),
    [
        (lost, "acknowledged-lost"),
        (left, "not-ended"),
        (changed, "ended-twice"),
        (two_hosts, "offered-twice"),
        (again, "ran-twice"),
        (stranger, "accepted-stale"),
        (after_success, "offered-after-end"),
        (runs_on, "runs-on"),
        (lost_early, "lease-lost-early"),
        (revived, "lease-revived"),
        (waits, "re-offer-late"),
    ],
)
def test_what_is_wrong_is_named(wrong: Callable[[Ledger], None], invariant: str) -> None:
    one = ledger()
    wrong(one)
    assert invariant in found(one)


def test_a_success_that_a_rolled_back_payload_did_not_repeat_is_none() -> None:
    one = ledger()
    after_success(one)
    one.reports[JOB, 1].append((20.0, HOST, report()))
    assert "offered-after-end" not in found(one)


def test_a_payload_may_run_on_while_nobody_can_reach_it() -> None:
    one = ledger()
    runs_on(one)
    one.troubles.append(Trouble("part-both", HOST, 3.0, 60.0))
    assert "runs-on" not in found(one)


def test_a_paused_pilot_keeps_its_lease_up_to_the_limit() -> None:
    one = ledger()
    lost_early(one)
    one.words[JOB, 1].append(Word(10.0, HOST, True))
    one.pause_seconds[JOB] = 90.0
    one.offers[-1] = OfferSeen(10.0 + 80.0, OTHER, JOB, 2)
    assert "lease-lost-early" in found(one)
    one.offers[-1] = OfferSeen(10.0 + 91.0, OTHER, JOB, 2)
    assert "lease-lost-early" not in found(one)


@pytest.mark.parametrize(("announced", "late"), [(True, False), (False, True)])
def test_so_does_one_that_announced_the_pause_and_never_named_the_attempt(
    announced: bool, late: bool
) -> None:
    one = ledger()
    one.words.clear()
    one.pause_seconds[JOB] = 90.0
    one.enrolled[HOST].append(0.5)
    if announced:
        one.pauses[HOST].append(Word(2.1, HOST, True))
    one.offers.append(OfferSeen(2.0 + 92.0, OTHER, JOB, 2))
    assert ("re-offer-late" in found(one)) == late
