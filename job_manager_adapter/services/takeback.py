"""What pilots lose: leases that ran out, and what those held that drain, were retired or left."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from copilot_agent.protocol.errors import ErrorCode
from copilot_agent.protocol.frames import CommandKind
from copilot_agent.protocol.job import FailureClass
from job_manager_adapter.core.leases import Lease
from job_manager_adapter.store.records import Release, Released
from job_manager_adapter.views import PilotState

if TYPE_CHECKING:
    from job_manager_adapter.services.dispatch import Dispatcher


async def expire(dispatcher: "Dispatcher") -> int:
    """Takes back what ran out; returns how many."""
    now = dispatcher.clock.monotonic()
    late = [lease for lease in dispatcher.leases.expired(now) if not lease.ending]
    for name in {lease.pilot for lease in late}:
        pilot = dispatcher.fleet.get(name)
        if pilot and pilot.state(now, dispatcher.config.policy.lease_seconds) is PilotState.LOST:
            pilot.silent = True  # what it has lost is not for itself to take again
            dispatcher.matcher.withdraw(name)
    await take_back(dispatcher, [_overdue(dispatcher, lease) for lease in late])
    dispatcher.tallies["leases_expired"] += len(late)
    return len(late)


async def take_back(dispatcher: "Dispatcher", wanted: Sequence[Release]) -> None:
    """Ends attempts without their pilots, which are told."""
    if not wanted:
        return
    with dispatcher.resting.ending(release.job for release in wanted):
        results = await dispatcher.store.release(wanted)
    for release, result in zip(wanted, results, strict=True):
        lease = dispatcher.leases.get((release.job, release.attempt))
        dispatcher.released(result, release.failure_class)
        if result.state is None and lease is not None and not lease.ending:
            dispatcher.drop(lease.key)
    dispatcher.rematch()


def _overdue(dispatcher: "Dispatcher", lease: Lease) -> Release:
    """Silence costs the job an attempt; an announced pause, or a lost offer, does not."""
    failure_class = FailureClass.LEASE_LOST
    message = "no word from its pilot until the lease ran out"
    pilot = dispatcher.fleet.get(lease.pilot)
    if pilot is not None and pilot.paused:
        failure_class = FailureClass.PREEMPTED
        message = f"its pilot was paused for longer than {lease.pause_seconds:.0f} s"
    elif lease.phase is None and not lease.started:
        failure_class = FailureClass.PREEMPTED
        message = "its pilot did not take the offer before the lease ran out"
    return Release(
        lease.job, lease.attempt, failure_class, message, dispatcher.clock.time(), overdue=True
    )


def dismiss(
    dispatcher: "Dispatcher", pilots: Iterable[str], reason: ErrorCode, released: Sequence[Released]
) -> None:
    """These were retired in the store, which released what they held."""
    known = [pilot for name in pilots if (pilot := dispatcher.fleet.get(name))]
    for pilot in known:
        pilot.retired, pilot.attached = True, False
        dispatcher.matcher.withdraw(pilot.id)
    for item in released:
        dispatcher.released(item, FailureClass.PREEMPTED)
    for pilot in known:
        dispatcher.command(pilot.id, CommandKind.RETIRE, reason=reason.value)
        if session := dispatcher.sessions.pop(pilot.id, None):
            session.close(reason)
        dispatcher.events.emit("pilot", pilot.id, "retired", detail=reason.value)
    dispatcher.rematch()


def left(dispatcher: "Dispatcher", name: str) -> None:
    """The pilot attached to another manager, which has its leases now."""
    if (pilot := dispatcher.fleet.get(name)) is None:
        return
    for key in list(pilot.leases):
        dispatcher.drop(key)
    pilot.attached, pilot.seen, pilot.elsewhere = False, None, True
    pilot.paused = pilot.unwritten = False  # what it is now is the other manager's to say
    pilot.doomed.clear()
    dispatcher.matcher.withdraw(name)
    dispatcher.outboxes.pop(name, None)
    if session := dispatcher.sessions.pop(name, None):
        session.close(ErrorCode.SESSION_SUPERSEDED)
