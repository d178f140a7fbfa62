"""The judge's rules about time; they know when and where there was trouble, nothing of its inside.

A host is calm when nothing is wrong with it, its line or the manager, and what was wrong is over
for as long as a pilot may take to come back: its back-off grows with the outage, up to half a
lease.
"""

import math
from collections import defaultdict
from collections.abc import Iterator
from itertools import pairwise

from copilot_agent.protocol.frames import VerdictKind
from tests.simulation.checker import Violation
from tests.simulation.ledger import Attempt, Ledger, OfferSeen, Payload, Trouble
from tests.simulation.manager import HEARTBEAT, LEASE

KILL_SECONDS = 4.0
"""From a frame's answer until a payload that is killed is gone."""
IDLE_SECONDS = 25.0
"""So long a job may wait beside an idle pilot: rest after failures, staging, sweeps."""
COMMIT_SECONDS = 2.0
"""The longest that a commit takes here, with the one before it."""
SLACK = 0.5
EXPIRY_SLACK = 0.05
SWEEP_SECONDS = 4.0
"""From a lease's end until it is taken back in the database: a sweep each second, and a commit."""
Span = tuple[float, float]


def check_times(ledger: Ledger) -> Iterator[Violation]:
    calm = Calm(ledger.troubles)
    yield from _run_on(ledger, calm)
    yield from _lost_early(ledger)
    yield from _revived(ledger, calm)
    yield from _late(ledger, calm)


class Calm:
    def __init__(self, troubles: list[Trouble]) -> None:
        self._spans: dict[str, list[Span]] = defaultdict(list)
        for trouble in troubles:
            self._spans[trouble.host].append((trouble.began, trouble.ended + _aftermath(trouble)))

    def stretches(self, host: str, begin: float, end: float) -> Iterator[Span]:
        """Where that host is calm between two times."""
        at = begin
        for start, stop in sorted(self._spans[host] + self._spans[""]):
            if start > at:
                yield at, min(start, end)
            at = max(at, stop)
            if at >= end:
                return
        if at < end:
            yield at, end

    def longest(self, host: str, begin: float, end: float) -> float:
        return max((stop - start for start, stop in self.stretches(host, begin, end)), default=0.0)


def _aftermath(trouble: Trouble) -> float:
    if trouble.kind == "noise":
        return 80.0  # an attach that came twice makes the pilot keep away for a minute
    return 10.0 + min(LEASE / 2, 2 * (trouble.ended - trouble.began))


# ----- what has no right to run is stopped


def _run_on(ledger: Ledger, calm: Calm) -> Iterator[Violation]:
    for payload in ledger.payloads:
        for since, why in _reasons_to_stop(ledger, payload):
            end = payload.ended if payload.ended is not None else ledger.universe.now
            seconds = calm.longest(payload.host, max(since, payload.began), end)
            if seconds > HEARTBEAT + KILL_SECONDS:
                what = f"{payload}: {why} at {since:.1f}, {seconds:.1f} calm seconds after that"
                yield Violation("runs-on", what)


def _reasons_to_stop(ledger: Ledger, payload: Payload) -> Iterator[tuple[float, str]]:
    for offer in ledger.offers:
        if offer.job == payload.job and offer.attempt > payload.attempt:
            yield offer.at, f"attempt {offer.attempt} was offered"
            break
    for at in ledger.cancels[payload.job]:
        if _first_offer(ledger, payload.job, payload.attempt) <= at:
            yield at, "cancelled"
            break


def _first_offer(ledger: Ledger, job: str, attempt: int) -> float:
    times = [o.at for o in ledger.offers if (o.job, o.attempt) == (job, attempt)]
    return times[0] if times else 0.0


# ----- a lease is held as long as its pilot speaks, or its pause allows


def _lost_early(ledger: Ledger) -> Iterator[Violation]:
    first: dict[Attempt, OfferSeen] = {}
    for offer in ledger.offers:
        first.setdefault((offer.job, offer.attempt), offer)
    for (job, number), offer in first.items():
        before = first.get((job, number - 1))
        if before is not None and not _had_reason(ledger, before, offer.at):
            what = f"{job}/{before.attempt} on {before.host}, offered anew at {offer.at:.1f}"
            yield Violation("lease-lost-early", what)


def _had_reason(ledger: Ledger, held: OfferSeen, until: float) -> bool:
    attempt = (held.job, held.attempt)
    return (
        any(at < until for at, _, _ in ledger.reports[attempt])
        or any(at < until for at in ledger.cancels[held.job])
        or any(at < until for at in ledger.retried[held.job])
        or any(held.at - SLACK < at < until for at in ledger.enrolled[held.host])
        or _fell_silent(ledger, held, until)
    )


def _fell_silent(ledger: Ledger, held: OfferSeen, until: float) -> bool:
    """Whether there was once no word for a whole lease; a new manager gives a fresh one."""
    attempt = (held.job, held.attempt)
    words = [word for word in ledger.words[attempt] if word.at < until]
    if not words:
        return True  # when it was claimed cannot be seen
    contacts = [(word.at, word.paused) for word in words]
    contacts += [(at, False) for at in ledger.serving if words[0].at < at < until]
    contacts.sort()
    limit = ledger.pause_seconds.get(held.job, 0.0)
    paused, spoke = False, 0.0
    spoke_first = words[0].at - _claimed_after(ledger, held) >= LEASE - SLACK
    ends = [at for at, _ in contacts[1:]] + [until]
    for (at, says_paused), after in zip(contacts, ends, strict=True):
        if at not in ledger.serving:
            paused, spoke = says_paused, at
        elif _killed_before_commit(ledger, spoke):
            paused = False
        lease = max(LEASE, limit - (at - spoke)) if paused else LEASE
        if after - at >= lease - SLACK:
            return True
    return spoke_first


def _killed_before_commit(ledger: Ledger, said: float) -> bool:
    """What a pilot says of a pause is not acknowledged: it may be heard and not written down."""
    return any(
        trouble.kind in ("manager-crash", "store-crash")
        and said <= trouble.began <= said + COMMIT_SECONDS
        for trouble in ledger.troubles
    )


def _claimed_after(ledger: Ledger, held: OfferSeen) -> float:
    """A time before which the attempt cannot have been claimed."""
    earlier = [o.at for o in ledger.offers if o.job == held.job and o.attempt < held.attempt]
    return max([ledger.asked.get(held.job, 0.0), *earlier])


# ----- a lease that ran out is over


def _revived(ledger: Ledger, calm: Calm) -> Iterator[Violation]:
    """No word for a whole lease, then a word that is no report, and much later it is accepted."""
    accepted = {
        (seen.job, seen.attempt) for seen in ledger.verdicts if seen.verdict is VerdictKind.ACCEPTED
    }
    for attempt in sorted(accepted):
        reported = min((at for at, _, _ in ledger.reports[attempt]), default=0.0)
        words = ledger.words[attempt]
        for word, after in pairwise(words):
            lease = max(LEASE, ledger.pause_seconds.get(attempt[0], 0.0)) if word.paused else LEASE
            restarted = any(word.at < at < after.at for at in ledger.serving)
            swept = after.at + SWEEP_SECONDS
            if after.at - word.at <= lease + EXPIRY_SLACK or restarted or reported < swept:
                continue
            if calm.longest("", after.at, swept) >= SWEEP_SECONDS:
                what = f"{attempt}: silent from {word.at:.2f} to {after.at:.2f}, {reported:.1f}"
                yield Violation("lease-revived", what)
                break


# ----- a job does not wait beside an idle pilot


def _late(ledger: Ledger, calm: Calm) -> Iterator[Violation]:
    busy = _busy(ledger)
    for job in ledger.submitted:
        offers = [offer for offer in ledger.offers if offer.job == job]
        begin = ledger.submitted[job]
        for offer in offers:
            yield from _waited(ledger, calm, busy, job, begin, offer.at)
            begin = max(begin, _lost_at_last(ledger, offer))


def _waited(
    ledger: Ledger, calm: Calm, busy: dict[str, list[Span]], job: str, begin: float, end: float
) -> Iterator[Violation]:
    """While anything was wrong somewhere, an offer may have gone there unseen: a lease more."""
    others = any(trouble.began < end and trouble.ended > begin for trouble in ledger.troubles)
    most = LEASE + 1.0 + IDLE_SECONDS if others else IDLE_SECONDS
    for host in ledger.hosts:
        for start, stop in calm.stretches(host, begin, end):
            free = _free(busy[host], start, stop)
            if free > most:
                what = f"{job} from {begin:.1f} to {end:.1f}, while {host} was idle {free:.1f} s"
                yield Violation("re-offer-late", what)
                return


def _lost_at_last(ledger: Ledger, held: OfferSeen) -> float:
    """When its lease must be over if nobody speaks again: the last contact and a whole lease."""
    attempt = (held.job, held.attempt)
    words = ledger.words[attempt]
    last = max([held.at, *(word.at for word in words)])
    for at in ledger.serving:
        if at > last and at - last < LEASE + SLACK:
            last = at
    paused = words[-1].paused if words else _announced(ledger, held)
    lease = max(LEASE, ledger.pause_seconds.get(held.job, 0.0)) if paused else LEASE
    return last + lease + 1.0


def _announced(ledger: Ledger, held: OfferSeen) -> bool:
    """Whether the pilot that got the offer, and never named it, had announced a pause."""
    enrolled = ledger.enrolled[held.host]
    until = min((at for at in enrolled if at > held.at), default=math.inf)
    since = max((at for at in enrolled if at <= held.at), default=0.0)
    heard = [word for word in ledger.pauses[held.host] if since <= word.at < until]
    return bool(heard) and heard[-1].paused


def _busy(ledger: Ledger) -> dict[str, list[Span]]:
    """When a host has anything at all: from an offer to the last word about it."""
    spans: dict[str, list[Span]] = defaultdict(list)
    for offer in ledger.offers:
        words = ledger.words[offer.job, offer.attempt]
        ends = [word.at for word in words if word.host == offer.host]
        spans[offer.host].append((offer.at, max(ends, default=offer.at) + HEARTBEAT))
    return {host: sorted(spans[host]) for host in ledger.hosts}


def _free(busy: list[Span], begin: float, end: float) -> float:
    """The longest time in between without anything."""
    longest, at = 0.0, begin
    for start, stop in busy:
        if start >= end:
            break
        longest = max(longest, start - at)
        at = max(at, stop)
    return max(longest, end - at)
