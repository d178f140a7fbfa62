"""Durable job cycles: claim, heartbeat, report, next offer, each answered after its commit.

A real manager with authentication, checks of every frame, metrics and synchronous=FULL; pilots in
another process that speak the real protocol; an experiment that submits meanwhile. A pilot never
has more than `window` jobs in its hands.
"""

import asyncio
import os

from tests.bench import cycles_floor, peers
from tests.bench.cycles_load import Figures, Load, measure
from tests.bench.frame import Frame
from tests.bench.results import Result, at_least
from tests.harness import postgres, programs

NAME = "cycles"
DESCRIPTION = "durable job cycles: claim, heartbeat, report, next offer"
SECONDS = 900.0
"""The peers are measured first, if nobody has done so in this run."""
HEARTBEAT_SECONDS, LEASE_SECONDS = 30.0, 300.0


async def run(frame: Frame) -> list[Result]:
    seconds = frame.pick(10.0, 1.0)
    one = await _sqlite(frame, "window-1", Load(seconds=seconds))
    results = [_rate("", one, 5000), *await _beside_peers(frame, one)]
    cpu = min(os.sched_getaffinity(0))
    alone = await _sqlite(frame, "one-cpu", Load(seconds=seconds), cpu=cpu)
    results.append(_rate(".one_cpu", alone))
    single = await _sqlite(frame, "single", Load(batch=1, submitters=32, seconds=seconds))
    results.append(_rate(".single_submits", single))
    eight = await _sqlite(frame, "window-8", Load(window=8, seconds=seconds))
    floor = await asyncio.to_thread(
        cycles_floor.cycles_per_second, frame.root, frame.pick(60_000, 2000)
    )
    beside = ("the same rows through bare sqlite3 in groups", floor)
    results.append(_rate(".window_8", eight, 10_000, *beside))
    poll = await _sqlite(frame, "poll", Load(carrier="poll", seconds=seconds))
    results.append(_rate(".poll", poll, 2000))
    return results + await _on_postgres(frame, seconds)


def _rate(
    what: str,
    figures: Figures,
    target: float | None = None,
    peer: str | None = None,
    peer_value: float | None = None,
) -> Result:
    return Result(
        name=f"{NAME}{what}",
        value=round(figures.per_second, 1),
        unit="/s",
        target=None if target is None else at_least(target),
        peer=peer or f"simulated pilots' own CPU: {figures.pilots_us:.0f} us a cycle",
        peer_value=None if peer_value is None else round(peer_value, 1),
        cpu_us=round(figures.manager_us, 1),
    )


async def _sqlite(frame: Frame, name: str, load: Load, cpu: int | None = None) -> Figures:
    policy = {"heartbeat_seconds": HEARTBEAT_SECONDS, "lease_seconds": LEASE_SECONDS}
    async with programs.manager(frame.root / name, cpu=cpu, **policy) as manager:
        figures = await measure([manager], load)
    _say(frame, name, figures)
    return figures


def _say(frame: Frame, name: str, figures: Figures) -> None:
    frame.say(
        f"{name}: {figures.per_second:.0f} cycles/s, manager {figures.manager_us:.0f} us and "
        f"simulated pilots {figures.pilots_us:.0f} us CPU for each"
    )


async def _beside_peers(frame: Frame, one: Figures) -> list[Result]:
    results = []
    for name, least, peer in (
        ("durable_peer", 10, await peers.best_durable(frame)),
        ("any_peer", 5, await peers.best(frame)),
    ):
        if peer is not None:
            times = round(one.per_second / peer.rate, 2)
            label = f"{peer.name} (jobs per second)"
            results.append(
                Result(f"{NAME}.times_best_{name}", times, "×", at_least(least), label, peer.rate)
            )
    return results


async def _on_postgres(frame: Frame, seconds: float) -> list[Result]:
    """One manager, then two on a fresh database."""
    with postgres.cluster() as cluster:
        one = await _managers(frame, cluster, 1, seconds)
        two = await _managers(frame, cluster, 2, seconds)
    return [
        _rate(".postgres_one_manager", one, 2000),
        _rate(
            ".postgres_two_managers",
            two,
            round(one.per_second, 1),
            "one manager on PostgreSQL",
            one.per_second,
        ),
    ]


async def _managers(
    frame: Frame, cluster: postgres.Postgres, count: int, seconds: float
) -> Figures:
    name = f"postgres-{count}"
    shared = frame.root / name / "shared"
    settings = f'[store]\nurl = "{cluster.database()}"\nshared_dir = "{shared}"\n'
    managers = [
        programs.ManagerProgram(
            frame.root / name / str(number),
            heartbeat_seconds=HEARTBEAT_SECONDS,
            lease_seconds=LEASE_SECONDS,
            settings=settings,
        )
        for number in range(count)
    ]
    try:
        for manager in managers:
            await manager.start()
        load = Load(seconds=seconds)
        figures = await measure(managers, load, also=(cluster.pid,))
    finally:
        for manager in managers:
            await manager.stop()
    _say(frame, name, figures)
    return figures
