"""The judge: reads what was seen from outside, and nothing else, and names what must not be.

acknowledged-lost    a submission was acknowledged, and the job is not there in the end
not-ended            a job, a lease or a payload is left over long after the last fault
ended-twice          a job that had ended was seen in another state, or told with two outcomes
offered-after-end    a job was offered again after a success of it was accepted
offered-twice        the same attempt was offered to two hosts
ran-twice            a payload of the same attempt ran on two hosts, or again without a rollback
accepted-twice       two attempts of a job were accepted as its success
accepted-stale       a report was accepted that did not come from the holder of the newest attempt
credit               not exactly one receipt, signed and unique, for each success
result-incomplete    a job succeeded without its outputs in the file store
runs-on              a payload ran on after its job was cancelled, had ended, or went to another
lease-lost-early     an attempt was given up although its pilot had spoken within the lease
lease-revived        an attempt lived on although its lease had run out in silence
re-offer-late        a job waited although its lease was over and a pilot stood idle
unexpected-error     an exception that nobody caught (the world adds it)
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

from copilot_agent.protocol.frames import VerdictKind
from copilot_agent.protocol.job import JobState, Outcome
from job_manager_adapter.services.pilots import signed
from job_manager_adapter.views import JobView
from tests.simulation.ledger import Attempt, Ledger


@dataclass(frozen=True)
class Violation:
    invariant: str
    what: str

    def __str__(self) -> str:
        return f"{self.invariant}: {self.what}"


def check(ledger: Ledger, manager_key: str) -> Iterator[Violation]:
    yield from _ends(ledger)
    yield from _upstream(ledger)
    yield from _attempts(ledger)
    yield from _acceptances(ledger)
    yield from _credit(ledger, manager_key)


# ----- each job ends, once


def _ends(ledger: Ledger) -> Iterator[Violation]:
    for job in ledger.submitted:
        if job not in ledger.final:
            yield Violation("acknowledged-lost", job)
    for job, view in ledger.final.items():
        if not view.state.final:
            yield Violation("not-ended", f"{job} is {view.state}")
        kept = job in ledger.cancelled and not ledger.retried.get(job)
        if kept and view.state is not JobState.CANCELLED:
            yield Violation("ended-twice", f"{job} was cancelled and is {view.state}")
    if ledger.leases_left:
        yield Violation("not-ended", f"{ledger.leases_left} leases are left")
    if not ledger.quiet:
        yield Violation("not-ended", "the system does not come to rest")
    for at, job, state in ledger.finals_seen:
        now = ledger.final[job].state if job in ledger.final else None
        if now is not state and not ledger.retried.get(job):
            yield Violation("ended-twice", f"{job} was {state} at {at:.1f} and is {now}")


def _upstream(ledger: Ledger) -> Iterator[Violation]:
    told: dict[str, set[Outcome]] = defaultdict(set)
    for end in ledger.upstream:
        told[end.upstream].add(end.outcome)
    for upstream in ledger.upstream_claimed:
        job = ledger.upstream_jobs.get(upstream)
        view = ledger.final.get(job or "")
        if view is None:
            yield Violation("acknowledged-lost", f"{upstream} of the scheduler")
        elif len(told[upstream]) > 1:
            yield Violation("ended-twice", f"{upstream} was told as {sorted(told[upstream])}")
        elif {outcome.value for outcome in told[upstream]} != {view.state.value}:
            yield Violation("not-ended", f"{upstream} is {view.state}, told {told[upstream]}")


# ----- attempts


def _attempts(ledger: Ledger) -> Iterator[Violation]:
    offered: dict[Attempt, set[str]] = defaultdict(set)
    for offer in ledger.offers:
        offered[offer.job, offer.attempt].add(offer.host)
    for attempt, hosts in offered.items():
        if len(hosts) > 1:
            yield Violation("offered-twice", f"{_name(attempt)} to {sorted(hosts)}")
    ran: dict[Attempt, list[str]] = defaultdict(list)
    for payload in ledger.payloads:
        ran[payload.job, payload.attempt].append(payload.host)
    rolled = {trouble.host for trouble in ledger.troubles if trouble.kind == "rollback"}
    for attempt, ran_on in ran.items():
        if len(set(ran_on)) > 1 or (len(ran_on) > 1 and ran_on[0] not in rolled):
            yield Violation("ran-twice", f"{_name(attempt)} on {ran_on}")
    for job, view in ledger.final.items():
        numbers = [attempt.attempt for attempt in view.attempts]
        open_ = [attempt.attempt for attempt in view.attempts if attempt.state != "ended"]
        if numbers != list(range(1, len(numbers) + 1)) or open_:
            yield Violation("not-ended", f"{job} has attempts {numbers}, of them open {open_}")


def _acceptances(ledger: Ledger) -> Iterator[Violation]:
    accepted = {
        (seen.job, seen.attempt): seen.host
        for seen in ledger.verdicts
        if seen.verdict is VerdictKind.ACCEPTED
    }
    successes: dict[str, set[int]] = defaultdict(set)
    for attempt, host in accepted.items():
        # one that ran again after a rollback may end otherwise; then the API says which counts
        if {report.outcome for _, _, report in ledger.reports[attempt]} == {Outcome.SUCCEEDED}:
            successes[attempt[0]].add(attempt[1])
        yield from _stale(ledger, attempt, host)
    for job, view in ledger.final.items():
        shown = {one.attempt for one in view.attempts if one.outcome is Outcome.SUCCEEDED}
        yield from _successes(ledger, view, shown, successes[job])
        successes[job] |= shown
    for offer in ledger.offers:
        if any(offer.attempt > number for number in successes.get(offer.job, ())):
            what = f"{offer.job}/{offer.attempt} at {offer.at:.1f}, success {successes[offer.job]}"
            yield Violation("offered-after-end", what)


def _successes(
    ledger: Ledger, view: JobView, shown: set[int], heard: set[int]
) -> Iterator[Violation]:
    """What the API shows of a job, and which successes its pilots heard to be accepted."""
    job = view.id
    if len(shown | heard) > 1:
        yield Violation("accepted-twice", f"{job}: attempts {shown | heard}")
    if (view.state is JobState.SUCCEEDED) != bool(shown):
        yield Violation("ended-twice", f"{job} is {view.state}, succeeded attempts {shown}")
    for number in shown:
        if not ledger.uploads[job, number]:
            yield Violation("result-incomplete", f"{job}/{number}")


def _stale(ledger: Ledger, attempt: Attempt, host: str) -> Iterator[Violation]:
    """The report came when a newer attempt was with somebody already, or from a stranger."""
    job, number = attempt
    first = min((at for at, _, _ in ledger.reports[attempt]), default=0.0)
    newer = [offer for offer in ledger.offers if offer.job == job and offer.attempt > number]
    if newer and newer[0].at < first:
        what = f"{_name(attempt)} reported at {first:.1f}, {newer[0]} before"
        yield Violation("accepted-stale", what)
    holders = {o.host for o in ledger.offers if (o.job, o.attempt) == attempt}
    if host not in holders:
        yield Violation("accepted-stale", f"{_name(attempt)} from {host}, held by {holders}")


# ----- credit


def _credit(ledger: Ledger, manager_key: str) -> Iterator[Violation]:
    ids: dict[str, set[str]] = defaultdict(set)
    granted: dict[str, float] = {}
    for _, receipt in ledger.receipts:
        statement = receipt.statement
        ids[statement.job].add(statement.id)
        if statement.id not in granted:
            granted[statement.id] = statement.granted
            if not signed(manager_key, receipt.signed(), receipt.signature):
                yield Violation("credit", f"receipt {statement.id} is not signed by the manager")
    for job, view in ledger.final.items():
        wanted = 1 if view.state is JobState.SUCCEEDED else 0
        if len(ids[job]) != wanted:
            yield Violation("credit", f"{job} is {view.state}, receipts: {sorted(ids[job])}")
    if abs(sum(granted.values()) - ledger.credit) > 1e-9:
        yield Violation("credit", f"launchers have {sum(granted.values())}, not {ledger.credit}")


def _name(attempt: Attempt) -> str:
    return f"{attempt[0]}/{attempt[1]}"
