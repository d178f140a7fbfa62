"""Why a job is not running: per requirement, how many pilots could take it."""

from collections.abc import Sequence
from dataclasses import dataclass

from copilot_agent.protocol.capabilities import Capabilities
from copilot_agent.protocol.job import Requirements
from job_manager_adapter.views import RequirementView


@dataclass(frozen=True, slots=True)
class Idle:
    """What keeps jobs waiting besides their requirements."""

    rests: float | None = None
    """Seconds that the job still rests after a failed attempt."""
    draining: int = 0
    """Pilots."""
    paused: int = 0


def requirements(need: Requirements, fleet: Sequence[Capabilities]) -> tuple[RequirementView, ...]:
    """One line for each thing asked for, with the best that any pilot has."""
    views = [
        _number("cores", need.cores, [one.cores for one in fleet]),
        _number("memory MiB", need.memory_mib, [one.memory_mib for one in fleet]),
        _number("disk MiB", need.disk_mib, [one.disk_mib for one in fleet]),
        _platform(need.platform, fleet),
    ]
    views += [_flag(flag, fleet) for flag in need.cpu_flags]
    return tuple(views)


def _number(name: str, asked: int, offered: Sequence[int]) -> RequirementView:
    return RequirementView(
        requirement=f"{name} >= {asked}",
        pilots_fit=sum(value >= asked for value in offered),
        best_offer=str(max(offered)) if offered else "",
    )


def _platform(asked: str, fleet: Sequence[Capabilities]) -> RequirementView:
    return RequirementView(
        requirement=f"platform = {asked}",
        pilots_fit=sum(one.platform == asked for one in fleet),
        best_offer=", ".join(sorted({one.platform for one in fleet}))[:500],
    )


def _flag(flag: str, fleet: Sequence[Capabilities]) -> RequirementView:
    count = sum(flag in one.cpu_flags for one in fleet)
    return RequirementView(requirement=f"cpu flag {flag}", pilots_fit=count)


def next_step(
    need: Requirements, alive: Sequence[Capabilities], fit_now: int, fit_idle: int, idle: Idle
) -> tuple[str, str]:
    """(summary, next step) for a job that waits."""
    if idle.rests is not None:
        return (
            f"it rests after a failed attempt, for another {idle.rests:.0f} s",
            "wait; `copilot job show` says why it failed",
        )
    if not alive and (idle.draining or idle.paused):
        return (
            f"no pilot takes jobs: {idle.draining} drain, {idle.paused} are paused",
            "wait; an operator sees with `copilot fleet show` what drains, and may undo it",
        )
    if not alive:
        return "no pilot is alive", "start a launcher, or look at `copilot pilot list`"
    if fit_idle == 0:
        blocking = [
            view.requirement for view in requirements(need, alive) if view.pilots_fit == 0
        ] or ["the combination of its requirements"]
        return (
            f"none of {len(alive)} pilots can ever run it: {', '.join(blocking)}",
            "ask for less, or add hosts that offer it",
        )
    if fit_now == 0:
        return (
            f"all {fit_idle} pilots that could run it are busy",
            "wait; it is taken when one has room",
        )
    return f"{fit_now} pilots have room", "it should start within seconds"
