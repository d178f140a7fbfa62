"""How payloads end, under each kind of confinement."""

import asyncio
import os
import signal
import time

import pytest

from copilot_agent.payload.runner import SLOTS, PayloadEnd, PayloadStartError, Sandbox
from copilot_agent.protocol.job import FailureClass, Limits, Requirements, Usage
from tests.integration.payload.conftest import Lab, Run, plan, spec, survivors

PAYLOAD, LIMIT = FailureClass.PAYLOAD, FailureClass.PAYLOAD_LIMIT


BOMB = (
    "import os, signal\n"
    "for _ in range(10_000):\n"
    "    try:\n"
    "        if os.fork() == 0: signal.pause()\n"
    "    except BlockingIOError: signal.pause()\n"
)


def check_limit(run: Run, words: str) -> None:
    assert run.end.failure_class is LIMIT, run.end
    assert words in run.end.message
    assert run.survivors == []


def test_success(lab: Lab) -> None:
    run = lab.run("sh", "-c", "echo out; echo err >&2")
    assert (run.end.exit_code, run.end.failure_class, run.end.message) == (0, None, "")
    assert (run.stdout, run.stderr) == (b"out\n", b"err\n")
    assert 0 < run.end.usage.wall_seconds < 10


def test_a_payload_that_removes_its_own_directory(lab: Lab) -> None:
    run = lab.run("sh", "-c", 'rm -rf "$HOME" 2>/dev/null; exit 0')
    assert (run.end.exit_code, run.end.failure_class) == (0, None)


def test_exit_code(lab: Lab) -> None:
    run = lab.run("sh", "-c", "exit 3")
    assert (run.end.exit_code, run.end.failure_class) == (3, PAYLOAD)
    assert run.end.message == "the payload exited with code 3"


def test_signal(lab: Lab) -> None:
    run = lab.run("sh", "-c", "kill -SEGV $$")
    assert (run.end.exit_code, run.end.signal) == (None, signal.SIGSEGV)
    assert run.end.failure_class is PAYLOAD
    assert "SIGSEGV" in run.end.message


def test_ten_thousand_processes(lab: Lab) -> None:
    begin = time.monotonic()
    run = lab.run("/usr/bin/python3", "-c", BOMB, limits=Limits(processes=100))
    check_limit(run, "more than 100 processes")
    assert time.monotonic() - begin < 10


def test_a_fork_bomb_that_ends_by_itself(lab: Lab) -> None:
    bomb = "import os, signal\nwhile True:\n    if os.fork() == 0: signal.pause()\n"
    run = lab.run("/usr/bin/python3", "-c", bomb, limits=Limits(processes=100))
    check_limit(run, "more than 100 processes")


def test_ten_gigabytes_of_memory(lab: Lab) -> None:
    # Paced, because without cgroups a look must come between the limit and the kernel's refusal.
    hog = (
        "import time\nkept = []\n"
        "for _ in range(10_000): kept.append(b'x' * (1 << 20)); time.sleep(0.005)\n"
    )
    begin = time.monotonic()
    run = lab.run("/usr/bin/python3", "-c", hog, requirements=Requirements(memory_mib=64))
    check_limit(run, "more than 64 MiB of memory")
    assert time.monotonic() - begin < 10


def test_memory_of_many_processes_together(lab: Lab) -> None:
    hogs = (
        "import os, signal\n"
        "for _ in range(8):\n"
        "    if os.fork() == 0:\n"
        "        kept = b'x' * (16 << 20)\n"
        "        signal.pause()\n"
        "signal.pause()\n"
    )
    run = lab.run("/usr/bin/python3", "-c", hogs, requirements=Requirements(memory_mib=64))
    check_limit(run, "more than 64 MiB of memory")


def test_one_large_file(lab: Lab) -> None:
    run = lab.run(
        "dd", "if=/dev/zero", "of=big", "bs=1M", "count=500", requirements=Requirements(disk_mib=20)
    )
    check_limit(run, "20 MiB")
    assert run.end.usage.disk_bytes <= 21 << 20


def test_many_files_fill_the_disk(lab: Lab) -> None:
    fill = 'i=0; while head -c 1000000 /dev/zero > "f$i"; do i=$((i+1)); done'
    run = lab.run("sh", "-c", fill, requirements=Requirements(disk_mib=30))
    check_limit(run, "filled 30 MiB of disk")


def test_deep_directories(lab: Lab) -> None:
    dig = "import os\nwhile True:\n    os.mkdir('d'); os.chdir('d')\n"
    run = lab.run("/usr/bin/python3", "-c", dig)
    check_limit(run, "deeper than 64")


def test_run_time(lab: Lab) -> None:
    run = lab.run("sleep", "1000", limits=Limits(run_seconds=1))
    check_limit(run, "longer than 1 seconds")
    assert 1 <= run.end.usage.wall_seconds < 5
    assert run.end.signal == signal.SIGTERM


def test_run_time_with_sigterm_ignored(lab: Lab) -> None:
    deaf = "trap '' TERM; while :; do sleep 1; done"
    begin = time.monotonic()
    run = lab.run("sh", "-c", deaf, limits=Limits(run_seconds=1))
    check_limit(run, "longer than 1 seconds")
    assert run.end.signal == signal.SIGKILL
    assert time.monotonic() - begin < 6


def test_a_gigabyte_of_output(lab: Lab) -> None:
    loud = "printf first; head -c 1000000000 /dev/zero; printf last"
    run = lab.run("sh", "-c", loud, limits=Limits(log_mib=1))
    assert run.end.failure_class is None
    assert run.stdout.startswith(b"first\0") and run.stdout.endswith(b"\0last")
    note = b"\n[... 998951433 bytes cut here: the log is limited to 1048576 bytes ...]\n"
    assert note in run.stdout
    assert len(run.stdout) == (1 << 20) + len(note)


def test_a_grandchild_that_keeps_the_pipe(lab: Lab) -> None:
    run = lab.run("sh", "-c", "setsid sleep 1000 & echo started")
    assert run.end.failure_class is None
    assert run.stdout == b"started\n"
    assert run.survivors == []


def test_a_daemon_that_lost_its_parent(lab: Lab) -> None:
    run = lab.run("sh", "-c", "(setsid setsid sleep 1000 &) ; exit 0")
    assert run.end.failure_class is None
    assert run.survivors == []


def test_killed_by_the_agent(lab: Lab) -> None:
    async def work(sandbox):  # type: ignore[no-untyped-def]
        payload = await lab.start(
            sandbox, spec("sh", "-c", "trap '' TERM; sleep 1000 & wait; wait")
        )
        await payload.kill(FailureClass.CANCELLED, "not wanted any more", grace_seconds=0.2)
        end = await payload.wait()
        await payload.kill(FailureClass.HOST, "too late")
        return end, await payload.wait(), survivors(lab.scratch)

    end, later, alive = lab.do(work)
    assert end == later
    assert (end.failure_class, end.message) == (FailureClass.CANCELLED, "not wanted any more")
    assert alive == []


def test_next_payload_starts_at_once(lab: Lab) -> None:
    """After a fork bomb, in the same slot."""

    async def work(sandbox: Sandbox) -> tuple[PayloadEnd, PayloadEnd, float]:
        bomb = spec("/usr/bin/python3", "-c", BOMB, limits=Limits(processes=50))
        first = await (await lab.start(sandbox, bomb, 1)).wait()
        begin = time.monotonic()
        second = await (await lab.start(sandbox, spec("true"), 2)).wait()
        return first, second, time.monotonic() - begin

    first, second, seconds = lab.do(work)
    assert first.failure_class is LIMIT
    assert second.failure_class is None
    assert seconds < 5


def test_progress_and_log_while_it_runs(lab: Lab) -> None:
    talk = "printf 'half\\033[31m\\n' ; echo 0.25 > .progress; echo 0.5 >> .progress; read _ < wait"

    async def work(sandbox: Sandbox) -> tuple[float | None, str, Usage, PayloadEnd]:
        job = plan(sandbox, spec("sh", "-c", talk))
        os.mkfifo(job.directory / "wait", 0o666)
        payload = await sandbox.start(job)
        gate = await asyncio.to_thread(lambda: os.open(job.directory / "wait", os.O_WRONLY))
        seen = payload.fraction(), payload.log_tail(), payload.usage()
        os.write(gate, b"go\n")
        os.close(gate)
        return *seen, await payload.wait()

    fraction, tail, usage, end = lab.do(work)
    assert fraction == 0.5
    assert tail == "half\\x1b[31m\n"
    assert usage.wall_seconds > 0
    assert end.failure_class is None


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (("no-such-program",), "was not found on PATH"),
        (("./no-such-file",), "was not found"),
        (("/etc/passwd",), "is not executable"),
        (("./script",), "interpreter is not in this guest"),
        (("./text",), "cannot be run"),
    ],
)
def test_programs_that_cannot_run(lab: Lab, command: tuple[str, ...], words: str) -> None:
    async def work(sandbox: Sandbox) -> tuple[FailureClass, str] | None:
        job = plan(sandbox, spec(*command))
        for name, text in (("script", "#!/no/such/interpreter\n"), ("text", "just text\n")):
            (job.directory / name).write_text(text)
            (job.directory / name).chmod(0o755)
        try:
            await sandbox.start(job)
        except PayloadStartError as error:
            return error.failure_class, error.message
        return None

    refusal = lab.do(work)
    assert refusal is not None
    failure_class, message = refusal
    assert failure_class is FailureClass.ENVIRONMENT
    assert words in message


def test_a_start_that_is_not_wanted_any_more(lab: Lab) -> None:
    async def work(sandbox: Sandbox) -> list[int]:
        for attempt in range(SLOTS + 1):  # so that each must give its slot back
            job = plan(sandbox, spec("/bin/sleep", "60"), attempt)
            start = asyncio.create_task(sandbox.start(job))
            await asyncio.sleep(0)  # it has begun,
            await asyncio.sleep(0)  # and waits for its slot or its process
            start.cancel()
            with pytest.raises(asyncio.CancelledError):
                await start
        return survivors(lab.scratch)

    assert lab.do(work) == []
