"""What /metrics says of durations and of what went wrong."""

from copilot_agent.protocol.ids import id_time, make_id
from copilot_agent.protocol.job import Usage
from job_manager_adapter.metrics import Metrics
from job_manager_adapter.services.timings import Durations
from tests.unit.job_manager_adapter.services.world import LEASE, World


async def exposed(world: World) -> dict[str, float]:
    text = (await Metrics(world.services, ("lhc",), "1").text()).decode()
    pairs = (line.rpartition(" ") for line in text.splitlines() if not line.startswith("#"))
    return {name: float(value) for name, _, value in pairs}


def test_buckets_add_up() -> None:
    durations = Durations((1.0, 10.0))
    for seconds in (0.5, 1.0, 5.0, 99.0):
        durations.observe(seconds)
    assert durations.cumulative() == [("1.0", 2.0), ("10.0", 3.0), ("+Inf", 4.0)]
    assert durations.total == 105.5


def test_an_id_tells_its_time() -> None:
    for at in (0.0, 1_700_000_000.125, 4_000_000_000.0):
        assert id_time(make_id("j", at, 7)) == at


async def test_waits_and_runs_are_measured(world: World) -> None:
    job = (await world.submit()).jobs[0]
    world.clock.advance(20)
    pilot = await world.pilot()
    await pilot.hear()
    await pilot.run(job)
    await pilot.finish(job, usage=Usage(wall_seconds=100.0, cpu_seconds=1.0))
    said = await exposed(world)
    assert said["copilot_job_wait_seconds_sum"] == 20
    assert said['copilot_job_wait_seconds_bucket{le="10.0"}'] == 0
    assert said['copilot_job_wait_seconds_bucket{le="60.0"}'] == 1
    assert said["copilot_job_run_seconds_sum"] == 100
    assert said["copilot_job_run_seconds_count"] == 1
    assert said["copilot_match_duration_seconds_count"] == 1
    assert 0 < said["copilot_match_duration_seconds_sum"] < 1


async def test_what_is_lost_is_counted(world: World) -> None:
    pilot = await world.pilot()
    job = (await world.submit()).jobs[0]
    await pilot.hear()
    await pilot.run(job)
    world.clock.advance(LEASE + 1)
    await world.services.housekeeping.look_after_pilots()
    await world.services.housekeeping.expire()
    said = await exposed(world)
    names = ("pilots_registered", "pilots_lost", "leases_expired")
    assert [said[f"copilot_{name}_total"] for name in names] == [1, 1, 1]
    assert said['copilot_attempts_failed_total{failure_class="lease_lost"}'] == 1
    assert said['copilot_attempts_failed_total{failure_class="payload"}'] == 0
