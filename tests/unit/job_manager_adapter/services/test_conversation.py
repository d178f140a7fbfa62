"""What a pilot sees and what becomes of its jobs."""

from copilot_agent.protocol.frames import CommandKind, VerdictKind
from copilot_agent.protocol.job import JobState, Phase
from tests.unit.job_manager_adapter.services.world import World


async def test_a_job_goes_all_the_way(world: World) -> None:
    pilot = await world.pilot()
    job = (await world.submit()).jobs[0]
    frame = await pilot.hear()
    assert frame is not None and [offer.job for offer in frame.offers] == [job]
    assert (await world.job(job)).state is JobState.LEASED

    await pilot.run(job)
    assert (await world.job(job)).state is JobState.RUNNING

    world.clock.advance(20)
    frame = await pilot.finish(job)
    assert [verdict.verdict for verdict in frame.verdicts] == [VerdictKind.ACCEPTED]
    assert len(frame.receipts) == 1
    view = await world.job(job)
    assert view.state is JobState.SUCCEEDED
    assert {output.name for output in view.outputs} == {"stdout.log", "stderr.log"}
    assert view.attempts[0].credit_granted == 10 * 200 / 86400


async def test_what_is_not_leased_is_abandoned(world: World) -> None:
    pilot = await world.pilot()
    pilot.holding["j-00000000000000000000", 1] = Phase.RUNNING
    frame = await pilot.say()
    assert frame is not None
    assert [command.kind for command in frame.commands] == [CommandKind.ABANDON]
