"""What a payload can reach, and that nothing of it outlives an agent that was killed."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from copilot_agent.payload.runner import Sandbox
from copilot_agent.protocol.job import FailureClass, Requirements
from tests.integration.payload.conftest import (
    Lab,
    make_lab,
    plan,
    said,
    spec,
    survivors,
)

LOOK = """
import json, os, resource
status = dict(line.split(":\\t", 1) for line in open("/proc/self/status").read().splitlines()
              if ":\\t" in line)
print(json.dumps({
    "uid": os.getuid(), "gid": os.getgid(), "groups": os.getgroups(),
    "caps": [status[k].strip() for k in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")],
    "no_new_privs": status["NoNewPrivs"].strip(),
    "files": sorted(os.readlink(f"/proc/self/fd/{n}") for n in os.listdir("/proc/self/fd")
                    if os.path.lexists(f"/proc/self/fd/{n}")),
    "session": os.getsid(0) == os.getpid(),
    "umask": os.umask(0), "core": resource.getrlimit(resource.RLIMIT_CORE),
    "oom": int(open("/proc/self/oom_score_adj").read()),
    "cwd": os.getcwd(), "environment": dict(os.environ),
}))
"""


def test_what_a_payload_finds(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENT_SECRET", "of the agent")
    run = lab.run("/usr/bin/python3", "-c", LOOK, environment={"ENERGY": "13"})
    seen = json.loads(run.stdout)
    assert seen["no_new_privs"] == "1"
    assert seen["session"]
    assert seen["umask"] == 0o077
    assert seen["core"] == [0, 0]
    assert 0 <= seen["oom"] <= 500
    assert set(seen["caps"][i] for i in (0, 1, 2, 4)) == {"0000000000000000"}
    files = [name for name in seen["files"] if not name.startswith("/proc/")]
    assert files[0].endswith("/dev/null"), "in a chroot the kernel shows where that lies"
    assert [name.split(":")[0] for name in files[1:]] == ["pipe", "pipe"]
    environment = seen["environment"]
    home = environment["HOME"]
    assert seen["cwd"] == home
    assert environment["TMPDIR"] == f"{home}/.tmp"
    assert environment["GLIBC_TUNABLES"].startswith("glibc.cpu.hwcaps=-AVX2")
    assert (environment["COPILOT_ATTEMPT"], environment["COPILOT_CORES"]) == ("1", "1")
    assert environment["ENERGY"] == "13"
    assert "AGENT_SECRET" not in environment
    if lab.kind != "user":
        assert (seen["uid"], seen["gid"], seen["groups"]) == (lab.uid, lab.uid, [])
        assert seen["caps"][3] == "0000000000000000"


def test_variables_that_the_job_decides(lab: Lab) -> None:
    show = 'echo "$GLIBC_TUNABLES|$HTTP_PROXY|$LANG"'
    plain = lab.run("sh", "-c", show, reproducible=False)
    assert plain.stdout == b"||C.UTF-8\n"


def test_own_choice_of_cpu_features(lab: Lab) -> None:
    mine = {"GLIBC_TUNABLES": "glibc.malloc.check=1"}
    run = lab.run("sh", "-c", 'echo "$GLIBC_TUNABLES"', environment=mine)
    assert run.stdout == b"glibc.malloc.check=1\n"


@pytest.fixture(params=["groups", "uids"])
def own_uid_lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    yield from make_lab(request.param)


@pytest.mark.root
def test_two_payloads_cannot_touch_each_other(own_uid_lab: Lab) -> None:
    lab = own_uid_lab
    secret = lab.top / "state"
    secret.mkdir(mode=0o700)
    (secret / "key").write_text("secret")
    attack = (
        f"cat {secret}/key; cat $OTHER/file; echo bad > $OTHER/file; kill -9 $VICTIM; "
        f"kill -9 {os.getpid()}; cat /proc/{os.getpid()}/environ; cat /proc/$VICTIM/environ; "
        "mkdir ../../new; ls ../..; ls ../../cache; exit 0"
    )

    async def work(sandbox: Sandbox) -> tuple[int, Path, str]:
        first = plan(sandbox, spec("sh", "-c", "echo mine > file; echo > ready; sleep 1000"), 1)
        os.mkfifo(first.directory / "ready")
        victim = await sandbox.start(first)
        await asyncio.to_thread((first.directory / "ready").read_bytes)
        changes = {"OTHER": str(first.directory), "VICTIM": str(victim.pid)}
        second = plan(sandbox, spec("sh", "-c", attack, environment=changes), 2)
        await (await sandbox.start(second)).wait()
        owner = Path(f"/proc/{victim.pid}").stat().st_uid
        content = (first.directory / "file").read_text()
        await victim.kill(FailureClass.CANCELLED, "enough", grace_seconds=0)
        assert said(second.stdout) == b""
        return owner, second.stderr, content

    owner, refusals, content = lab.do(work)
    assert owner == lab.uid
    assert content == "mine\n"
    text = refusals.read_text()
    assert text.count("Permission denied") + text.count("not permitted") == 10, text


@pytest.mark.root
def test_staged_inputs_can_be_read_not_written(own_uid_lab: Lab) -> None:
    async def work(sandbox: Sandbox) -> bytes:
        job = plan(
            sandbox, spec("sh", "-c", "cat data; echo x >> data; rm -f $(readlink -f data); ls ..")
        )
        files = sandbox.cache / "files"
        files.mkdir(mode=0o710)
        os.chown(files, -1, own_uid_lab.uid)
        (files / "abc").write_text("events\n")
        (files / "abc").chmod(0o444)
        (job.directory / "data").symlink_to(files / "abc")
        await (await sandbox.start(job)).wait()
        assert (files / "abc").read_text() == "events\n"
        return job.stdout.read_bytes()

    assert own_uid_lab.do(work) == b"events\n"


@pytest.mark.root
def test_shared_places_are_the_payloads_own(own_uid_lab: Lab) -> None:
    """A file in /dev/shm is the payload's disk, and gone with it; a private key stays unseen."""
    mine = Path("/dev/shm") / f"of-another-{own_uid_lab.uid}"
    mine.write_text("x")
    try:
        script = "ls /dev/shm; echo x > /dev/shm/new; echo x > /var/tmp/new; ls .tmp"
        run = own_uid_lab.run("sh", "-c", script)
    finally:
        mine.unlink()
    assert (run.stdout, run.stderr) == (b"new\n", b"")
    assert not Path("/dev/shm/new").exists()
    assert not Path("/var/tmp/new").exists()


CALL = """
import socket, sys
own = socket.create_server(("127.0.0.1", 0))
socket.create_connection(own.getsockname()).close()
socket.create_connection(("127.0.0.1", int(sys.argv[1])), timeout=5).close()
"""


@pytest.mark.root
@pytest.mark.parametrize("network", [False, True])
def test_only_a_job_with_network_reaches_what_listens_here(own_uid_lab: Lab, network: bool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
        run = own_uid_lab.run("/usr/bin/python3", "-c", CALL, port, network=network)
    assert (run.end.exit_code == 0) == network
    assert (b"ConnectionRefusedError" in run.stderr) != network


AGENT = """
import asyncio, os, sys
from pathlib import Path
from tests.integration.payload.conftest import NOBODY, Lab, become, plan, spec
lab = Lab(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
if lab.kind == "user" and os.geteuid() == 0:
    become(NOBODY)
async def main():
    sandbox = lab.sandbox()
    job = plan(sandbox, spec("sh", "-c", "trap '' TERM HUP; setsid sleep 1000 & sleep 1000 & "
                             "echo x > file; wait; wait; sleep 1000"))
    await sandbox.start(job)
    while not (job.directory / "file").exists():
        await asyncio.sleep(0.01)
    print("runs", flush=True)
    await asyncio.Event().wait()
asyncio.run(main())
"""


def test_next_agent_kills_and_removes_what_a_killed_one_left(lab: Lab) -> None:
    command = [sys.executable, "-c", AGENT, lab.kind, str(lab.top), str(lab.uid)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as agent:
        assert agent.stdout is not None
        assert agent.stdout.readline() == b"runs\n"
        assert len(survivors(lab.scratch)) >= 3
        agent.send_signal(signal.SIGKILL)
    assert survivors(lab.scratch), "the payload's children go on without the agent"

    async def work(sandbox: Sandbox) -> tuple[list[str], list[str]]:
        return await sandbox.reclaim(), await sandbox.reclaim()

    found, later = lab.do(work)
    assert survivors(lab.scratch) == []
    assert any("work j-" in each for each in found)
    assert len(found) >= 2
    assert later == []
    assert list((lab.scratch / "work").iterdir()) == []


def test_probe_names_the_confinement(lab: Lab) -> None:
    async def work(sandbox: Sandbox) -> tuple[str, ...]:
        return sandbox.probe()

    words = set(lab.do(work))
    expected = {"groups": {"uid"}, "uids": {"uid"}, "user": set()}[lab.kind]
    assert words - {"cgroup1", "cgroup2"} == {"rlimits", "no_new_privs"} | expected
    assert (lab.kind == "groups") == bool(words & {"cgroup1", "cgroup2"})


@pytest.mark.root
def test_cores_are_bounded_by_groups() -> None:
    """Two busy processes of a one-core job get one core's time."""
    busy = (
        "import os, time\n"
        "child = os.fork()\n"
        "end = time.monotonic() + 1\n"
        "while time.monotonic() < end: pass\n"
        "child and os.wait()\n"
    )
    for lab in make_lab("groups"):
        run = lab.run("/usr/bin/python3", "-c", busy, requirements=Requirements(cores=1))
        assert run.end.failure_class is None
        assert run.end.usage.cpu_seconds < 1.4 * run.end.usage.wall_seconds
