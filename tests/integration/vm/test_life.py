"""The life of jobs in a real VM: manager, launcher, QEMU, image, agent and payloads are real.

One VM serves the tests, in their order; those at the end kill what it stands on.
"""

import asyncio
import logging
import os
import signal
import textwrap
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

from copilot_agent.protocol.ids import JobId
from copilot_agent.protocol.job import FailureClass, JobState, Outcome
from copilot_agent.protocol.receipt import Receipt
from job_manager_adapter.client import verify_receipt
from job_manager_adapter.views import JobView, PilotState
from tests.harness import programs, scripted_vm, vm
from tests.harness.jobs import Jobs, succeeded_once

pytestmark = [pytest.mark.vm, pytest.mark.asyncio(loop_scope="module")]

log = logging.getLogger(__name__)

LEASE_SECONDS = 5.0
LONG_LEASE_SECONDS = 120.0
"""Longer than a boot, as in real life; a lease that runs out costs the job an attempt."""
REFUSED = "the secret is bound to another launcher"
CLOCK_SECONDS = 0.5
"""By this the guest's clock may differ from the host's."""
OPTIONS = ("--cpus", "2", "--memory", "512", "--disk", "512")


@dataclass
class Station(Jobs):
    """A manager and one host of its fleet."""

    manager: programs.ManagerProgram
    host: vm.VmProgram

    async def pilot(self) -> str:
        pilots = (await self.client.pilots.list()).items
        (alive,) = [one for one in pilots if one.state is PilotState.ALIVE]
        return alive.id

    async def receipts(self) -> list[Receipt]:
        return list((await self.client.credit.receipts()).items)

    def kept_receipts(self) -> list[Receipt]:
        """What the launcher has of them."""
        path = self.host.state / "receipts.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        return [Receipt.model_validate_json(line) for line in lines]

    async def runs(self, job: JobId) -> JobView:
        return await self.reached(job, JobState.RUNNING)

    async def check_one_receipt(self, job: JobId) -> None:
        def kept() -> bool:
            return [one.statement.job for one in self.kept_receipts()].count(job) == 1

        await programs.eventually(kept, 10, f"one receipt of {job} with the launcher")
        ledger = [one.statement.job for one in await self.receipts()]
        assert ledger.count(job) == 1

    async def check_clock(self) -> None:
        """Compares a job's clock with the manager's, between the job's offer and its report."""
        job = await self.submit("python3", "-c", "import time; print(time.time())")
        (attempt,) = (await self.ended(job)).attempts
        guest = float((await self.client.jobs.logs(job)).text)
        assert attempt.started_at is not None
        assert attempt.ended_at is not None
        log.info("guest's clock less start: %.3f s", guest - attempt.started_at.timestamp())
        assert attempt.leased_at.timestamp() - CLOCK_SECONDS < guest
        assert guest < attempt.ended_at.timestamp() + CLOCK_SECONDS


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def station(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Station]:
    root = tmp_path_factory.mktemp("life")
    image = scripted_vm.built_image()
    async with programs.manager(root / "manager", lease_seconds=LEASE_SECONDS) as manager:
        secret = await manager.enrolment()
        async with (
            vm.launcher(manager, secret, image, OPTIONS) as host,
            programs.client(manager) as client,
        ):
            yield Station(client, manager, host)
            state = host.state
            await host.stop()
            assert vm.left_behind(state) == {"receipts.jsonl"}
            assert programs.naming(state) == []


@pytest_asyncio.fixture(loop_scope="module")
async def idle(station: Station) -> Station:
    await station.host.idle()
    return station


def shell(script: str) -> tuple[str, ...]:
    return ("/bin/sh", "-c", script)


async def test_a_jobs_credit_is_kept_by_the_launcher(idle: Station) -> None:
    spin = "i=0; while [ $i -lt 5000 ]; do i=$((i+1)); done; echo out; echo 42 >answer"
    job = await idle.submit(*shell(spin), outputs=[{"name": "answer"}])
    view = await idle.ended(job)
    succeeded_once(view)
    files = await idle.client.files.fetch_outputs(view, idle.manager.root / "fetched")
    contents = {path.name: path.read_text() for path in files}
    assert contents == {"answer": "42\n", "stdout.log": "out\n", "stderr.log": ""}
    await idle.check_one_receipt(job)
    ledger = await idle.client.credit.total()
    (receipt,) = [one for one in idle.kept_receipts() if one.statement.job == job]
    verify_receipt(receipt, ledger.manager_key)
    assert receipt.statement.granted > 0
    status = await idle.host.asked_status()
    assert status.receipts == len(await idle.receipts())
    assert status.credit_granted == pytest.approx(ledger.granted)
    assert status.network["refused"] == 0
    assert status.network["bytes_in"] > 0
    assert status.network["bytes_out"] > 0


# Asks for each place through the proxy, then without it; prints what became of it.
REACH = textwrap.dedent("""\
    import base64, os, socket, sys
    from urllib.parse import urlsplit
    proxy = urlsplit(os.environ.get("HTTP_PROXY", ""))
    password = base64.b64encode(f"{proxy.username}:{proxy.password}".encode()).decode()
    def ask(host, port):
        with socket.create_connection((proxy.hostname, proxy.port), 10) as link:
            lines = f"CONNECT {host}:{port} HTTP/1.1", f"Proxy-Authorization: Basic {password}"
            link.sendall("\\r\\n".join([*lines, "", ""]).encode())
            return link.recv(4096).split()[1].decode()
    def straight(host, port):
        try:
            socket.create_connection((host, port), 2).close()
            return "reached"
        except OSError:
            return "none"
    for place in sys.argv[1:]:
        host, port = place.rsplit(":", 1)
        print(place, ask(host, int(port)) if proxy.port else "-", straight(host, int(port)))
    """)
FORBIDDEN = ("10.0.0.1:80", "192.168.1.1:80", "169.254.169.254:80", "example.org:443")


async def test_a_payload_reaches_only_what_the_owner_has_named(idle: Station) -> None:
    met: list[object] = []
    server = await asyncio.start_server(lambda *streams: met.append(streams), "127.0.0.1", 0)
    own = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    forbidden = (*FORBIDDEN, own)
    manager = f"127.0.0.1:{idle.manager.port}"
    before = (await idle.host.asked_status()).network
    command = ("python3", "-c", REACH, manager, *forbidden)
    job = await idle.submit(*command, network=True)
    succeeded_once(await idle.ended(job))
    said = (await idle.client.jobs.logs(job)).text.splitlines()
    assert said == [f"{manager} 200 none", *(f"{place} 403 none" for place in forbidden)]

    async def counted() -> bool:
        after = (await idle.host.asked_status()).network
        return bool(after["refused"] - before["refused"] == len(forbidden))

    await programs.eventually(counted, 5, "the refusals in the launcher's status")
    after = (await idle.host.asked_status()).network
    assert [one["target"] for one in after["last_refused"]][-len(forbidden) :] == list(forbidden)
    server.close()
    assert met == []


async def test_without_network_a_payload_has_none(idle: Station) -> None:
    before = (await idle.host.asked_status()).network["refused"]
    job = await idle.submit("python3", "-c", REACH, f"127.0.0.1:{idle.manager.port}")
    interfaces = await idle.submit("cat", "/proc/net/dev", "/proc/net/route")
    succeeded_once(await idle.ended(job))
    succeeded_once(await idle.ended(interfaces))
    said = (await idle.client.jobs.logs(job)).text
    assert said == f"127.0.0.1:{idle.manager.port} - none\n"
    lines = (await idle.client.jobs.logs(interfaces)).text.splitlines()
    assert [line.split(":")[0].strip() for line in lines if ":" in line] == ["lo"]
    assert (await idle.host.asked_status()).network["refused"] == before


P, LIMIT = FailureClass.PAYLOAD, FailureClass.PAYLOAD_LIMIT
BOMB = "i=0; while [ $i -lt 10000 ]; do sleep 60 & i=$((i+1)); done; wait"
HOARD = "b = []\nfor i in range(10240): b.append(b'x' * (1 << 20))"
FILL = "i=0; while :; do dd if=/dev/zero of=$i bs=1M count=4; i=$((i+1)); done"
STUBBORN = "trap '' TERM; while :; do sleep 0.1; done"


@pytest.mark.parametrize(
    ("command", "expected", "words"),
    [
        pytest.param(shell("exit 3"), P, "code 3", id="exits-3"),
        pytest.param(shell("kill -SEGV $$"), P, "SIGSEGV", id="signal"),
        pytest.param(shell(BOMB), LIMIT, "processes", id="fork-bomb"),
        pytest.param(("python3", "-c", HOARD), LIMIT, "memory", id="memory"),
        pytest.param(shell(FILL), LIMIT, "disk", id="disk"),
        pytest.param(("sleep", "600"), LIMIT, "longer than", id="outlives"),
        pytest.param(shell(STUBBORN), LIMIT, "longer than", id="ignores-sigterm"),
    ],
)
async def test_a_hostile_payload_harms_nobody_else(
    idle: Station, command: tuple[str, ...], expected: FailureClass, words: str
) -> None:
    pilot, boots = await idle.pilot(), idle.host.status.boots
    seconds = 2 if words == "longer than" else 60
    limits = {"run_seconds": seconds, "processes": 100}
    job = await idle.submit(*command, max_attempts=1, limits=limits)
    view = await idle.ended(job, 60)
    assert (view.state, view.failure_class) == (JobState.FAILED, expected), view.message
    assert words in view.message
    await check_next_job(idle)
    assert (await idle.pilot(), idle.host.status.boots) == (pilot, boots)


async def check_next_job(station: Station) -> None:
    """It runs within 5 s."""
    asked = time.time()
    view = await station.ended(await station.submit("/bin/true"))
    succeeded_once(view)
    started = view.attempts[-1].started_at
    assert started is not None
    assert started.timestamp() - asked < 5


async def test_much_output_is_cut_and_the_job_succeeds(idle: Station) -> None:
    flood = "head -c 20000000 /dev/zero | tr '\\0' 'x'; echo; echo the end"
    job = await idle.submit(*shell(flood), limits={"log_mib": 1, "run_seconds": 120})
    view = await idle.ended(job, 120)
    succeeded_once(view)
    log = next(output for output in view.outputs if output.name == "stdout.log")
    assert log.size < 2 << 20
    assert (await idle.client.jobs.logs(job)).text.endswith("the end\n")
    await check_next_job(idle)


async def test_a_pause_longer_than_the_lease_costs_nothing(idle: Station) -> None:
    job = await idle.submit("sleep", "3")
    await idle.runs(job)
    await idle.host.command("pause")
    await asyncio.sleep(LEASE_SECONDS + 3)  # the pause itself, by real clocks
    assert (await idle.client.jobs.show(job)).state is JobState.RUNNING
    await idle.host.command("resume")
    await idle.check_clock()
    view = await idle.ended(job)
    succeeded_once(view)
    assert len(view.attempts) == 1
    paused = idle.host.status.pause_seconds
    log.info("pause_ok to stopped: %s s", paused)
    assert paused is not None
    assert paused < 0.25  # 2 ms on an idle host
    await idle.check_one_receipt(job)


async def test_a_saved_vm_goes_on_under_a_new_launcher(idle: Station) -> None:
    pilot = await idle.pilot()
    job = await idle.submit("sleep", "5")
    await idle.runs(job)
    await idle.host.command("save")
    await idle.host.ended()
    saved = idle.host.status.save_seconds
    assert programs.naming(idle.host.state) == []
    await asyncio.sleep(LEASE_SECONDS + 1)  # the pause itself, by real clocks
    await idle.host.start()
    await idle.check_clock()
    view = await idle.ended(job)
    succeeded_once(view)
    assert len(view.attempts) == 1
    status = idle.host.status
    log.info("save: %s s, restore: %s s", saved, status.restore_seconds)
    assert status.vm_boot_seconds is None, "it was not booted"
    assert await idle.pilot() == pilot
    await idle.check_one_receipt(job)


async def test_the_manager_is_killed(idle: Station) -> None:
    """Its successor gives longer leases, for the tests that follow."""
    job = await idle.submit("sleep", "4")
    await idle.runs(job)
    await idle.manager.kill()
    idle.manager.lease_seconds = LONG_LEASE_SECONDS
    await idle.manager.start()
    view = await idle.ended(job)
    succeeded_once(view)
    assert len(view.attempts) == 1, "the running payload went on"
    await idle.check_one_receipt(job)


async def test_the_vm_is_killed(idle: Station) -> None:
    job = await idle.submit("sleep", "2")
    await idle.runs(job)
    boots = idle.host.status.boots
    os.kill(idle.host.hypervisor(), signal.SIGKILL)
    await idle.host.idle(after_boot=boots)
    view = await idle.ended(job)
    succeeded_once(view)
    first, *_, last = view.attempts
    assert first.outcome is Outcome.LOST
    assert not first.charged, "given back when the host enrolled its next pilot"
    assert first.pilot != last.pilot
    await idle.check_one_receipt(job)


async def test_the_launcher_is_killed_and_another_tries_its_secret(
    idle: Station, tmp_path: Path, cache: Path, repository: Path
) -> None:
    """Both boot at once. The successor brings an agent with which the next tests can do more."""
    job = await idle.submit("sleep", "2")
    await idle.runs(job)
    hypervisor = idle.host.hypervisor()
    await idle.host.kill()
    await programs.eventually(lambda: not programs.alive(hypervisor), 2, "the VM's end")
    assert "ended without a word" in await idle.host.command("status")

    shipped, secret = idle.host.image, idle.host.secret
    idle.host.image = vm.image_with_door(tmp_path, cache, repository)
    await idle.host.start()
    async with vm.launcher(idle.manager, secret, shipped, OPTIONS) as other:
        await idle.host.idle()
        assert "left a VM behind" in idle.host.said
        succeeded_once(await idle.ended(job))
        await idle.check_one_receipt(job)
        await other.ended(vm.IDLE_SECONDS)
        assert other.process is not None
        assert await other.process.wait() == 6
        assert REFUSED in other.said
        assert REFUSED in idle.manager.said
    await check_next_job(idle)


async def test_the_agent_is_killed(idle: Station) -> None:
    pilot, boots = await idle.pilot(), idle.host.status.boots
    first_only = '[ "$COPILOT_ATTEMPT" -gt 1 ] || { echo agent >order; sleep 600; }'
    job = await idle.submit(*shell(first_only))
    view = await idle.ended(job, 60)
    succeeded_once(view)
    died, done = view.attempts
    assert died.failure_class is FailureClass.HOST
    assert not died.charged
    assert (died.pilot, done.pilot) == (pilot, pilot), "the new agent is the same pilot"
    assert idle.host.status.boots == boots
    await idle.check_one_receipt(job)


async def test_the_payload_is_killed(idle: Station) -> None:
    first_only = '[ "$COPILOT_ATTEMPT" -gt 1 ] || { echo $$ >order; sleep 600; }'
    job = await idle.submit(*shell(first_only))
    view = await idle.ended(job)
    succeeded_once(view)
    assert [(one.signal, one.charged) for one in view.attempts] == [(9, True), (None, False)]
    await idle.check_one_receipt(job)


async def test_every_job_has_ended_exactly_once(idle: Station) -> None:
    counts = (await idle.client.jobs.counts()).counts
    open_jobs = [state for state, count in counts.items() if count and not state.final]
    assert open_jobs == []
    credited = [one.statement.job for one in await idle.receipts()]
    assert len(credited) == len(set(credited)) == counts[JobState.SUCCEEDED]
    assert sorted(one.statement.job for one in idle.kept_receipts()) == sorted(credited)
