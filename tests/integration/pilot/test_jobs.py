"""The life of jobs as their owner sees it: manager, agent and payload are real."""

import hashlib
import io
import zipfile
from pathlib import Path

import pytest

from copilot_agent.protocol.job import FailureClass, JobSpec, JobState, Outcome
from copilot_agent.protocol.receipt import CREDIT_PER_CPU_SECOND
from job_manager_adapter.client import verify_receipt
from tests.harness import programs
from tests.integration.pilot.conftest import Gate, Setting

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_a_job_comes_back_with_outputs_logs_and_credit(shared: Setting) -> None:
    script = "echo out; echo err >&2; mkdir data; echo 42 >data/answer"
    job = await shared.submit("/bin/sh", "-c", script, outputs=[{"name": "data/answer"}])
    view = await shared.ended(job)
    assert view.state is JobState.SUCCEEDED
    files = await shared.client.files.fetch_outputs(view, shared.root / "fetched")
    contents = {str(p.relative_to(shared.root / "fetched" / job)): p.read_text() for p in files}
    assert contents == {"data/answer": "42\n", "stdout.log": "out\n", "stderr.log": "err\n"}
    assert (await shared.client.jobs.logs(job)).text == "out\n"
    assert [attempt.outcome for attempt in view.attempts] == [Outcome.SUCCEEDED]


async def test_each_success_has_one_verifiable_receipt(shared: Setting) -> None:
    before = await shared.client.credit.total()
    spin = "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done"
    job = await shared.submit("/bin/sh", "-c", spin)
    view = await shared.ended(job)
    ledger = await shared.client.credit.total()
    receipts = (await shared.client.credit.receipts()).items
    (receipt,) = [each for each in receipts if each.statement.job == job]
    verify_receipt(receipt, ledger.manager_key)
    assert receipt.statement.granted == receipt.statement.cpu_seconds * CREDIT_PER_CPU_SECOND
    assert 0 < receipt.statement.cpu_seconds <= view.attempts[0].usage.cpu_seconds
    assert ledger.granted == pytest.approx(before.granted + receipt.statement.granted)


async def test_reference_time_is_what_is_granted(shared: Setting) -> None:
    before = (await shared.client.credit.total()).granted
    job = await shared.submit("/bin/true", reference_cpu_seconds=86400)
    await shared.ended(job)
    assert (await shared.client.credit.total()).granted == pytest.approx(before + 200)


async def test_inputs_arrive_and_archives_are_unpacked(shared: Setting) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("lib/words.txt", "from the archive\n")
    inputs = []
    for name, data, unpack in (
        ("plain.txt", b"plain\n", False),
        ("tree", buffer.getvalue(), True),
    ):
        path = shared.root / name
        path.write_bytes(data)
        sha256 = hashlib.sha256(data).hexdigest()
        await shared.client.files.upload(path, sha256)
        inputs.append({"name": name, "sha256": sha256, "size": len(data), "unpack": unpack})
    job = await shared.submit("/bin/cat", "plain.txt", "tree/lib/words.txt", inputs=inputs)
    assert (await shared.ended(job)).state is JobState.SUCCEEDED
    assert (await shared.client.jobs.logs(job)).text == "plain\nfrom the archive\n"


async def test_progress_and_log_tail_are_visible_while_it_runs(shared: Setting, gate: Gate) -> None:
    script = 'echo working; echo 0.25 >.progress; exec /bin/sh -c "$@"'
    job = await shared.submit("/bin/sh", "-c", script, "x", *gate.command[2:])
    await gate.runs()

    async def seen() -> bool:
        view = await shared.client.jobs.show(job)
        return view.fraction == 0.25 and (await shared.client.jobs.logs(job)).text == "working\n"

    await programs.eventually(seen, 10, "progress and log")
    assert (await shared.client.jobs.logs(job)).live
    gate.open()
    assert (await shared.ended(job)).state is JobState.SUCCEEDED


async def test_cancel_reaches_a_running_payload(shared: Setting, gate: Gate) -> None:
    job = await shared.submit(*gate.command)
    await gate.runs()
    assert (await shared.client.jobs.cancel([job])).changed == (job,)
    assert (await shared.ended(job)).state is JobState.CANCELLED
    await programs.eventually(lambda: not programs.alive(gate.pids[0]), 5, "the payload's end")


async def test_a_waiting_job_can_be_cancelled_and_retried(shared: Setting) -> None:
    job = await shared.submit("/bin/true", requirements={"cores": 200})
    assert (await shared.client.jobs.cancel([job])).changed == (job,)
    assert (await shared.client.jobs.show(job)).state is JobState.CANCELLED
    assert (await shared.client.jobs.retry([job])).changed == (job,)
    assert (await shared.client.jobs.show(job)).state is JobState.WAITING


async def test_explain_names_what_is_missing(shared: Setting) -> None:
    job = await shared.submit("/bin/true", requirements={"cores": 200})
    answer = await shared.client.jobs.explain(job)
    assert answer.pilots_fit_idle == 0
    cores = next(need for need in answer.requirements if "cores" in need.requirement)
    assert cores.pilots_fit == 0


async def test_two_jobs_run_at_once_and_a_third_waits(shared: Setting, tmp_path: Path) -> None:
    gates = [Gate(tmp_path, str(number)) for number in range(3)]
    jobs = [await shared.submit(*gate.command) for gate in gates]
    await gates[0].runs()
    await gates[1].runs()
    assert not gates[2].started.exists()
    gates[0].open()
    await gates[2].runs()
    for gate in gates:
        gate.open()
    assert {(await shared.ended(job)).state for job in jobs} == {JobState.SUCCEEDED}


async def test_the_same_idempotency_key_submits_once(shared: Setting) -> None:
    before = (await shared.client.jobs.counts()).counts
    spec = JobSpec(experiment=programs.EXPERIMENT, command=("/bin/true",))
    first = await shared.client.jobs.submit([spec], idempotency_key="once")
    second = await shared.client.jobs.submit([spec], idempotency_key="once")
    assert (first.created, second.created) == (True, False)
    assert first.jobs == second.jobs
    counts = (await shared.client.jobs.counts()).counts
    assert sum(counts.values()) == sum(before.values()) + 1


async def test_drain_lets_the_running_job_end_and_takes_no_more(
    shared: Setting, gate: Gate
) -> None:
    job = await shared.submit(*gate.command)
    await gate.runs()
    pilot = (await shared.client.pilots.list()).items[0].id
    await shared.client.pilots.drain(pilot)
    waiting = await shared.submit("/bin/true")
    gate.open()
    assert (await shared.ended(job)).state is JobState.SUCCEEDED
    assert (await shared.client.jobs.show(waiting)).state is JobState.WAITING
    await shared.client.pilots.drain(pilot, undo=True)
    assert (await shared.ended(waiting)).state is JobState.SUCCEEDED


async def test_at_a_drains_deadline_what_runs_goes_to_others_uncharged(
    shared: Setting, gate: Gate
) -> None:
    job = await shared.submit(*gate.command)
    await gate.runs()
    pilot = (await shared.client.pilots.list()).items[0].id
    await shared.client.pilots.drain(pilot, deadline_seconds=0.2)

    async def given_back() -> bool:
        return (await shared.client.jobs.show(job)).state is JobState.WAITING

    await programs.eventually(given_back, what="the job, given back")
    gate.open()
    await shared.client.pilots.drain(pilot, undo=True)
    view = await shared.ended(job)
    assert view.state is JobState.SUCCEEDED
    assert view.attempts[0].failure_class is FailureClass.PREEMPTED
    assert not view.attempts[0].charged
