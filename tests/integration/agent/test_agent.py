"""A real agent, outside a virtual machine, with real payloads."""

import asyncio
import os
import signal
import time
from hashlib import sha256
from pathlib import Path

import pytest

from copilot_agent.core.events import Key, TransportTrouble
from copilot_agent.protocol.errors import ErrorCode
from copilot_agent.protocol.frames import Command, CommandKind, Links, ManagerFrame, PilotFrame
from copilot_agent.protocol.ids import make_id
from copilot_agent.protocol.job import FailureClass, Outcome, Phase
from copilot_agent.standalone import InUseError
from tests.integration.agent.conftest import Bench
from tests.unit.copilot_agent.core.scenes import job_id


def key(number: int) -> Key:
    return Key(job_id(number), 1)


def runs(number: int) -> "Running":
    return Running(number)


class Running:
    """Is true of a frame that says that the job runs."""

    def __init__(self, number: int) -> None:
        self.job = job_id(number)

    def __call__(self, frame: PilotFrame) -> bool:
        return any(h.job == self.job and h.phase is Phase.RUNNING for h in frame.holding)


async def test_a_job_runs_and_its_outputs_come_back(bench: Bench) -> None:
    bench.start()
    await bench.attach()
    bench.say(offers=(bench.offer(1, "echo to stdout; echo 42 > result.txt", "result.txt"),))
    report = await bench.report(key(1))
    assert (report.outcome, report.exit_code) == (Outcome.SUCCEEDED, 0)
    assert bench.output(1, "result.txt") == b"42\n"
    assert bench.output(1, "stdout.log") == b"to stdout\n"
    assert {output.name for output in report.outputs} == {"result.txt", "stdout.log", "stderr.log"}
    await bench.until(lambda frame: not frame.holding)


async def test_a_failing_job_tells_its_exit_code_and_its_logs_come_back(bench: Bench) -> None:
    bench.start()
    await bench.attach()
    bench.say(offers=(bench.offer(1, "echo oh >&2; exit 3", "result.txt"),))
    report = await bench.report(key(1))
    assert (report.exit_code, report.failure_class) == (3, FailureClass.PAYLOAD)
    assert bench.output(1, "stderr.log") == b"oh\n"


async def test_a_missing_output_is_named(bench: Bench) -> None:
    bench.start()
    await bench.attach()
    bench.say(offers=(bench.offer(1, "echo hello", "result.txt"),))
    report = await bench.report(key(1))
    assert report.failure_class is FailureClass.PAYLOAD
    assert "result.txt" in report.message
    assert bench.output(1, "stdout.log") == b"hello\n"


async def test_a_cancelled_payload_dies_at_once(bench: Bench) -> None:
    bench.start()
    await bench.attach()
    bench.say(offers=(bench.offer(1, "sleep 1000"),))
    await bench.until(runs(1))
    begin = time.monotonic()
    cancel = Command(id=make_id("c", 0, 1), kind=CommandKind.CANCEL, job=job_id(1), attempt=1)
    bench.manager.say(ManagerFrame(session=1, server_time=1.0, commands=(cancel,)))
    report = await bench.report(key(1))
    assert report.outcome is Outcome.CANCELLED
    assert time.monotonic() - begin < 2


async def test_jobs_go_on_while_the_manager_is_away(bench: Bench) -> None:
    bench.start()
    await bench.attach()
    bench.say(offers=(bench.offer(1, "sleep 0.5; echo done > result.txt", "result.txt"),))
    await bench.until(runs(1))
    bench.manager.hang_up()
    frame = await bench.attach()
    assert frame.holding[0].job == job_id(1)
    report = await bench.report(key(1))
    assert report.outcome is Outcome.SUCCEEDED


async def test_links_that_ran_out_are_refreshed(bench: Bench) -> None:
    bench.start()
    await bench.attach()
    old = bench.offer(1, "echo 42 > result.txt", "result.txt", link="old")
    new = bench.offer(1, "", "result.txt", link="new")
    bench.manager.files.expired.add("old")
    bench.say(offers=(old,))
    await bench.until(lambda frame: bool(frame.link_requests))
    links = Links(job=job_id(1), attempt=1, outputs=new.outputs)
    bench.manager.say(ManagerFrame(session=1, server_time=1.0, links=(links,)))
    assert (await bench.report(key(1))).outcome is Outcome.SUCCEEDED
    assert bench.output(1, "result.txt") == b"42\n"


async def test_long_polls_do_where_websockets_do_not_pass(bench: Bench) -> None:
    bench.manager.websockets = False
    bench.start()
    await bench.attach()
    bench.say(offers=(bench.offer(1, "true"),))
    assert (await bench.report(key(1))).outcome is Outcome.SUCCEEDED


async def test_a_restarted_agent_is_the_same_pilot_and_reports_what_died_with_the_first(
    bench: Bench,
) -> None:
    bench.start()
    await bench.attach()
    bench.say(offers=(bench.offer(1, "sleep 1000"),))
    await bench.until(runs(1))
    await bench.stop()
    bench.start()
    await bench.attach()
    report = await bench.report(key(1))
    assert report.failure_class is FailureClass.HOST
    assert len(bench.manager.enrolments) == 1


async def test_an_unanswered_report_survives_the_agent(bench: Bench) -> None:
    bench.start()
    await bench.attach()
    bench.say(offers=(bench.offer(1, "true"),))
    await bench.until(lambda frame: bool(frame.reports))
    await bench.stop()
    bench.start()
    frame = await bench.attach()
    assert [report.job for report in frame.reports] == [job_id(1)]
    assert frame.reports[0].outcome is Outcome.SUCCEEDED


async def test_a_pilot_that_the_manager_has_forgotten_enrols_again(bench: Bench) -> None:
    bench.start()
    await bench.attach()
    bench.manager.forget_pilots()
    bench.manager.tokens.clear()
    bench.manager.hang_up(TransportTrouble.TOKEN)
    await bench.attach()
    assert len(bench.manager.enrolments) == 2


async def test_a_refused_enrolment_ends_the_agent(bench: Bench) -> None:
    bench.manager.refuse_enrolment = ErrorCode.ENROLMENT_REFUSED
    async with asyncio.timeout(10):
        assert await bench.start() == 3


async def test_sigterm_reports_what_runs_and_leaves(bench: Bench) -> None:
    agent = bench.start()
    await bench.attach()
    bench.say(offers=(bench.offer(1, "sleep 1000"),))
    await bench.until(runs(1))
    os.kill(os.getpid(), signal.SIGTERM)
    report = await bench.report(key(1))
    assert report.failure_class is FailureClass.VOLUNTEER_LEFT
    async with asyncio.timeout(5):
        assert await agent == 0
    digest = sha256(bytes(bench.state / "scratch")).hexdigest()[:12]
    assert not list(Path("/sys/fs/cgroup").glob(f"*/copilot-{digest}")), "no group stays behind"


async def test_a_second_agent_on_the_same_directory_is_refused(bench: Bench) -> None:
    bench.start()
    await bench.attach()
    with pytest.raises(InUseError, match="another agent"):
        await Bench(bench.manager, bench.state, bench.starter).start()


async def test_nothing_is_left_in_the_work_directory(bench: Bench, tmp_path: Path) -> None:
    bench.start()
    await bench.attach()
    bench.say(offers=(bench.offer(1, "mkdir a; echo b > a/c"),))
    await bench.report(key(1))
    await bench.until(lambda frame: not frame.holding)
    await bench.stop()
    assert list((bench.state / "scratch" / "work").iterdir()) == []
