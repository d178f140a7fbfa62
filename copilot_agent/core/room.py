"""Which held attempts may go on now: disk is taken from stage-in on, cores while a payload runs."""

from collections.abc import Iterable

from copilot_agent.core.attempts import ON_DISK, Attempt, Stage
from copilot_agent.protocol.capabilities import Capabilities
from copilot_agent.protocol.job import Requirements


def ready_to_stage(attempts: Iterable[Attempt], totals: Capabilities, now: float) -> list[Attempt]:
    """In the order of their offers; one that does not fit yet holds back those behind it."""
    held = list(attempts)
    free = totals.disk_mib - sum(a.needs.disk_mib for a in held if a.stage in ON_DISK)
    ready = []
    for attempt in held:
        if attempt.stage is not Stage.QUEUED or (attempt.retry_at or 0.0) > now:
            continue
        free -= attempt.needs.disk_mib
        if free < 0:
            break
        ready.append(attempt)
    return ready


def ready_to_run(attempts: Iterable[Attempt], totals: Capabilities) -> list[Attempt]:
    held = list(attempts)
    running = [a.needs for a in held if a.stage is Stage.RUNNING]
    cores = totals.cores - sum(needs.cores for needs in running)
    memory = totals.memory_mib - sum(needs.memory_mib for needs in running)
    ready = []
    for attempt in held:
        if attempt.stage is not Stage.STAGED:
            continue
        cores -= attempt.needs.cores
        memory -= attempt.needs.memory_mib
        if cores < 0 or memory < 0:
            break
        ready.append(attempt)
    return ready


def never_fits(needs: Requirements, totals: Capabilities) -> str:
    """What this pilot lacks for good, for people; empty if it could run the job."""
    lacks = [
        f"{name} {asked} of {offered}"
        for name, asked, offered in (
            ("cores", needs.cores, totals.cores),
            ("memory_mib", needs.memory_mib, totals.memory_mib),
            ("disk_mib", needs.disk_mib, totals.disk_mib),
        )
        if asked > offered
    ]
    if needs.platform != totals.platform:
        lacks.append(f"platform {needs.platform}, here is {totals.platform}")
    lacks += [f"cpu flag {flag}" for flag in needs.cpu_flags if flag not in totals.cpu_flags]
    return ", ".join(lacks)
