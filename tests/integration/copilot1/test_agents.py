"""Original agents on our manager: real manager, Prosody, chirp_server and Chirp tools."""

import asyncio
import io
import tarfile

import pytest

from copilot_agent.protocol.job import FailureClass, JobState
from tests.harness.copilot1_agent import Habits
from tests.harness.programs import eventually
from tests.integration.copilot1.settings import SECONDS, Setting

pytestmark = pytest.mark.asyncio(loop_scope="session")

SIMULATION = b"""#!/bin/sh
echo "events $1, beam $BEAM, $3"
echo "to stderr" >&2
awk -v n="$1" 'BEGIN { for (i = 0; i < n; i++) s += i; print s }' > sum.txt
mkdir -p histograms && sort -r "$2" > histograms/mass.txt
"""


async def test_a_simulation_comes_back_with_outputs_and_logs(shared: Setting) -> None:
    job = await shared.submit(
        "./simulate.sh",
        "1000",
        "cards.dat",
        "it's * $HOME; exit 3",
        inputs=[
            await shared.upload("simulate.sh", SIMULATION),
            await shared.upload("cards.dat", b"1\n2\n3\n"),
        ],
        outputs=[{"name": "sum.txt"}, {"name": "histograms/mass.txt"}],
        environment={"BEAM": "7 TeV; $HOME 'p p'"},
    )
    await shared.works()
    view = await shared.ended(job)
    assert view.state is JobState.SUCCEEDED, (view.message, shared.manager.said)
    fetched = await shared.client.files.fetch_outputs(view, shared.root / "fetched")
    contents = {str(p.relative_to(shared.root / "fetched" / job)): p.read_text() for p in fetched}
    assert contents == {
        "sum.txt": "499500\n",
        "histograms/mass.txt": "3\n2\n1\n",
        "stdout.log": "events 1000, beam 7 TeV; $HOME 'p p', it's * $HOME; exit 3\n",
        "stderr.log": "to stderr\n",
    }
    assert shared.chirp.names() == set(), "nothing is left on the Chirp server"


@pytest.mark.parametrize("generation", ["A", "B"])
async def test_programs_directories_and_archives_are_what_the_job_says(
    shared: Setting, generation: str
) -> None:
    """What the original has no words for comes as a script."""
    tree = io.BytesIO()
    with tarfile.open(fileobj=tree, mode="w:gz") as archive:
        member = tarfile.TarInfo("lib/words.txt")
        member.size = 6
        archive.addfile(member, io.BytesIO(b"words\n"))
    job = await shared.submit(
        "python3",
        "-c",
        "import os; show = lambda name: open(name).read();"
        " print(show('in/a.txt'), show('t/lib/words.txt'), os.environ['X'])",
        inputs=[
            await shared.upload("in/a.txt", b"first\n"),
            await shared.upload("t", tree.getvalue(), unpack=True),
        ],
        environment={"X": "two\nlines"},
    )
    await shared.works(Habits(generation))
    view = await shared.ended(job)
    log = (await shared.client.jobs.logs(job)).text
    assert (view.state, log) == (JobState.SUCCEEDED, "first\n words\n two\nlines\n"), view.message


async def script(shared: Setting, text: str, **fields: object) -> str:
    """A job whose program is this shell script."""
    inputs = [await shared.upload("run.sh", f"#!/bin/sh\n{text}\n".encode())]
    return await shared.submit("./run.sh", inputs=inputs, max_attempts=1, **fields)


@pytest.mark.parametrize(
    ("text", "code", "signal"),
    [("exit 3", 3, None), ("kill -9 $$", 137, 9), ("exit 255", 255, None)],
)
async def test_wait_statuses_are_understood(
    shared: Setting, text: str, code: int, signal: int | None
) -> None:
    job = await script(shared, text)
    agent = await shared.works()
    assert agent.outcomes == [code << 8], "the double says it as the original does"
    (attempt,) = (await shared.ended(job)).attempts
    assert (attempt.exit_code, attempt.signal) == (code, signal)
    assert attempt.failure_class is FailureClass.PAYLOAD


async def test_a_failed_validation_fails_the_job(shared: Setting) -> None:
    inputs = [
        await shared.upload("run.sh", b"#!/bin/sh\necho done > result\n"),
        await shared.upload("check.sh", b"#!/bin/sh\nexit 5\n"),
    ]
    environment = {"COPILOT1_VALIDATION_SCRIPT": "check.sh"}
    job = await shared.submit("./run.sh", inputs=inputs, environment=environment, max_attempts=1)
    await shared.works()
    view = await shared.ended(job)
    assert view.state is JobState.FAILED
    assert "validation script ended with exit code 5" in view.attempts[0].message


async def test_packages_reach_the_agent(shared: Setting) -> None:
    environment = {"COPILOT1_PACKAGES": "VO_ALICE@AliRoot::v4-16-Rev-01"}
    job = await script(shared, 'echo "$PACKAGE_0"', environment=environment)
    await shared.works()
    await shared.ended(job)
    assert (await shared.client.jobs.logs(job)).text == "AliRoot/v4-16-Rev-01\n"


async def test_what_cannot_be_said_to_an_original_fails_with_the_reason(shared: Setting) -> None:
    job = await script(shared, "true", environment={"COPILOT1_PACKAGES": "$(reboot)"})
    async with shared.agent() as agent:
        waiting = asyncio.create_task(agent.run())
        view = await shared.ended(job)
        waiting.cancel()
        await asyncio.wait([waiting])
    assert view.attempts[0].failure_class is FailureClass.ENVIRONMENT
    assert "packages" in view.attempts[0].message


async def test_cpu_time_of_newer_agents_earns_credit(shared: Setting) -> None:
    before = (await shared.client.credit.total()).granted
    job = await script(shared, "i=0; while [ $i -lt 60000 ]; do i=$((i+1)); done")
    await shared.works(Habits("B"))
    view = await shared.ended(job)
    assert view.attempts[0].usage.cpu_seconds > 0
    assert (await shared.client.credit.total()).granted > before


async def test_a_declared_output_that_is_a_link_is_missing(shared: Setting) -> None:
    """Other links in the directory are no fault."""
    text = "ln -s /etc/hostname stolen; mkdir d; ln -s d e; echo fine > good"
    job = await script(shared, text, outputs=[{"name": "good"}, {"name": "stolen"}])
    await shared.works()
    view = await shared.ended(job)
    assert view.attempts[0].failure_class is FailureClass.PAYLOAD
    assert "declared outputs are missing: stolen" in view.attempts[0].message
    assert "good" in {output.name for output in view.outputs}


async def test_only_jobs_of_the_configured_experiments_are_given(shared: Setting) -> None:
    job = await shared.submit("/bin/true", experiment="other")
    async with shared.agent() as agent:
        await agent.say(agent.manager, "want_getJob", jdl=agent.habits.machine)
        stop = asyncio.create_task(agent.run())
        await eventually(lambda: len(agent.acked) >= 2, what="the requests are acknowledged")
        stop.cancel()
        await asyncio.wait([stop])
    assert agent.told == [], "silence where nothing waits; above all no sleep"
    await shared.client.jobs.cancel([job])


async def test_a_draining_fleet_is_silent(shared: Setting) -> None:
    job = await shared.submit("/bin/true")
    await shared.client.fleet.drain()
    async with shared.agent() as agent:
        running = asyncio.create_task(agent.run())
        await eventually(lambda: len(agent.acked) >= 2, what="the requests are acknowledged")
        assert agent.told == []
        await shared.client.fleet.drain(undo=True)
        await asyncio.wait_for(running, SECONDS)
    assert (await shared.ended(job)).state is JobState.SUCCEEDED
