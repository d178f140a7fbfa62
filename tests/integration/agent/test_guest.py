"""The agent as it runs in a guest, with the launcher's real ends of both channels, without a VM."""

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import pytest

from copilot_agent.boot import next_epoch
from copilot_agent.core.events import Key
from copilot_agent.guest import Guest
from copilot_agent.host_channel.net import NetChannel
from copilot_agent.identity import PrivateKey
from copilot_agent.protocol.enrolment import enrolment_statement
from copilot_agent.protocol.errors import ErrorCode
from copilot_agent.protocol.frames import ManagerFrame
from copilot_agent.protocol.guest import (
    Drain,
    Enrolment,
    GuestMessage,
    GuestProgress,
    Hello,
    PauseOk,
    PauseSoon,
    Ready,
    Receipts,
    ReceiptsKept,
    Resumed,
    State,
    Stop,
    VmUsage,
    Welcome,
)
from copilot_agent.protocol.ids import make_id
from copilot_agent.protocol.job import FailureClass, Outcome
from copilot_agent.protocol.receipt import Receipt, Statement
from tests.harness.programs import eventually
from tests.integration.agent.conftest import SECRET, Bench
from tests.integration.agent.test_agent import runs
from tests.unit.copilot_agent.core.scenes import job_id
from tests.unit.copilot_agent.transports.scripted import PILOT
from tests.unit.vm_launcher.channels.conftest import Chardev
from vm_launcher.channels import HostChannel, NetServer
from vm_launcher.egress import AllowList, Egress, Entry

M = TypeVar("M", bound=GuestMessage)


class Launcher:
    """Welcomes the guest and vouches for it, as the real one; keeps what it hears."""

    def __init__(self, bench: Bench, root: Path) -> None:
        self.bench = bench
        self.root = root
        self.key = PrivateKey(b"L" * 32)
        self.clock: list[float] = []
        self.busy = 0.0
        self.looked = asyncio.Event()
        self.heard: asyncio.Queue[GuestMessage] = asyncio.Queue()

    async def start(self) -> None:
        url = self.bench.manager.url
        self.ctrl, self.net = Chardev(self.root / "ctrl"), Chardev(self.root / "net")
        await self.ctrl.start()
        await self.net.start()
        self.server = NetServer(self.net.path, Egress(AllowList([Entry.parse(url, local=True)])))
        await self.server.start()
        self.channel = HostChannel(self.ctrl.path)
        await self.channel.connect()
        self.listener = asyncio.create_task(self.listen())
        state = self.root / "run"
        state.mkdir()
        epoch = next_epoch(state)
        self.guest = asyncio.create_task(
            Guest(
                self.ctrl.port,
                NetChannel(epoch, self.net.port),
                state,
                epoch=epoch,
                scratch=self.root / "scratch",
                starter=self.bench.starter,
                set_clock=self.clock.append,
                busy=self._look,
            ).run()
        )
        await self.channel.send(
            Welcome(time=time.time() + 3600, manager=url, cores=2, memory_mib=1024, disk_mib=1024)
        )

    def _look(self) -> float:
        self.looked.set()
        return self.busy

    async def tells_usage(self, host: float, busy: float) -> None:
        """Returns when the guest has looked how busy it is, which is `busy`."""
        self.looked.clear()
        self.busy = busy
        await self.channel.send(VmUsage(cpu_seconds=host))
        async with asyncio.timeout(20):
            await self.looked.wait()

    async def listen(self) -> None:
        async for message in self.channel.messages():
            self.heard.put_nowait(message)
            if isinstance(message, Ready):
                await self.vouch(message.pilot_key)

    async def vouch(self, pilot_key: str) -> None:
        statement = enrolment_statement(hashlib.sha256(SECRET.encode()).hexdigest(), pilot_key)
        await self.channel.send(
            Enrolment(
                secret=SECRET, launcher_key=self.key.public, signature=self.key.sign(statement)
            )
        )

    async def hears(self, kind: type[M]) -> M:
        async with asyncio.timeout(20):
            while not isinstance(message := await self.heard.get(), kind):
                pass
        return message

    async def hears_state(self, word: str) -> State:
        while (state := await self.hears(State)).state != word:
            pass
        return state

    async def close(self) -> None:
        self.guest.cancel()
        with suppress(asyncio.CancelledError):
            await self.guest
        self.listener.cancel()
        await self.channel.close()
        await self.server.close()
        await self.ctrl.close()
        await self.net.close()


@pytest.fixture
async def launcher(bench: Bench, tmp_path: Path) -> AsyncIterator[Launcher]:
    launcher = Launcher(bench, tmp_path)
    await launcher.start()
    yield launcher
    await launcher.close()


async def test_a_guest_enrols_through_its_launcher_and_runs_a_job(
    launcher: Launcher, bench: Bench
) -> None:
    await bench.attach()
    assert bench.manager.enrolments[0].launcher_key == launcher.key.public
    assert bench.manager.enrolments[0].capabilities.cores == 2
    bench.say(offers=(bench.offer(1, "echo 42 > result.txt", "result.txt"),))
    report = await bench.report(Key(job_id(1), 1))
    assert report.outcome is Outcome.SUCCEEDED
    assert bench.output(1, "result.txt") == b"42\n"
    assert (await launcher.hears_state("working")).pilot == PILOT
    await launcher.hears_state("idle")
    while (await launcher.hears(GuestProgress)).jobs_succeeded != 1:
        pass


SPIN = "import time; t=time.process_time()\nwhile time.process_time() < t + {}: pass"


async def claimed(bench: Bench, number: int) -> float:
    report = await bench.report(Key(job_id(number), 1))
    assert report.outcome is Outcome.SUCCEEDED, report.message
    return report.usage.cpu_seconds


async def test_a_slowed_down_guest_claims_no_more_than_it_got(
    launcher: Launcher, bench: Bench
) -> None:
    await bench.attach()
    bench.say(offers=(bench.offer(1, f'python3 -c "{SPIN.format(0.2)}"'),))
    assert await claimed(bench, 1) > 0.2, "nothing was told: the guest's own account"

    await launcher.tells_usage(host=10.0, busy=100.0)
    await launcher.tells_usage(host=11.0, busy=110.0)
    bench.say(offers=(bench.offer(2, f'python3 -c "{SPIN.format(0.4)}"'),))
    assert 0.04 < await claimed(bench, 2) < 0.1


async def test_each_part_of_a_job_counts_by_what_the_host_gave_then(
    launcher: Launcher, bench: Bench
) -> None:
    await bench.attach()
    await launcher.tells_usage(host=10.0, busy=100.0)
    half = f'python3 -c "{SPIN.format(0.4)}"'
    script = f"{half}; touch half; while [ ! -e go ]; do sleep 0.05; done; {half}"
    bench.say(offers=(bench.offer(1, script),))
    work = launcher.root / "scratch" / "work"
    await eventually(lambda: list(work.glob("*/half")), what="the first half")
    await launcher.tells_usage(host=10.0, busy=105.0)
    await launcher.tells_usage(host=15.0, busy=110.0)
    (mark,) = work.glob("*/half")
    mark.with_name("go").touch()
    seconds = await claimed(bench, 1)
    assert 0.4 <= seconds < 0.8, "the host gave nothing for the first half, all of the second"


async def test_what_saving_the_vm_has_cost_is_not_claimed(launcher: Launcher, bench: Bench) -> None:
    await bench.attach()
    await launcher.tells_usage(host=10.0, busy=100.0)
    await launcher.tells_usage(host=11.0, busy=110.0)
    await launcher.channel.send(Resumed(time=time.time(), paused_seconds=100))
    await bench.attach()
    await launcher.tells_usage(host=50.0, busy=115.0)
    bench.say(offers=(bench.offer(1, f'python3 -c "{SPIN.format(0.4)}"'),))
    assert await claimed(bench, 1) < 0.1


@pytest.fixture
def used_key(bench: Bench) -> None:
    """As after a snapshot's rollback to before the enrolment."""
    bench.manager.refuse_enrolment = ErrorCode.CONFLICT


async def test_a_used_key_is_replaced_and_vouched_for(
    used_key: None, launcher: Launcher, bench: Bench
) -> None:
    manager = bench.manager
    await eventually(lambda: manager.refused_keys, what="a refused key")
    manager.refuse_enrolment = None
    await bench.attach()
    assert manager.enrolments[0].pilot_key not in manager.refused_keys


async def test_the_guests_clock_is_set_from_the_welcome(launcher: Launcher, bench: Bench) -> None:
    await bench.attach()
    assert len(launcher.clock) == 1
    assert launcher.clock[0] - time.time() > 3000


async def test_a_pause_is_told_to_the_manager_first_and_the_guest_comes_back(
    launcher: Launcher, bench: Bench
) -> None:
    await bench.attach()
    bench.say(offers=(bench.offer(1, "sleep 1000"),))
    await bench.until(runs(1))
    begin = time.monotonic()
    await launcher.channel.send(PauseSoon())
    await launcher.hears(PauseOk)
    assert time.monotonic() - begin < 1.0
    await bench.until(lambda frame: frame.paused)
    await launcher.channel.send(Resumed(time=time.time(), paused_seconds=100))
    assert (await launcher.hears(Hello)).epoch == 2
    frame = await bench.attach()
    assert not frame.paused
    assert [held.job for held in frame.holding] == [job_id(1)]


async def test_receipts_are_kept_by_the_launcher_before_the_manager_hears_so(
    launcher: Launcher, bench: Bench
) -> None:
    await bench.attach()
    receipt = _receipt()
    bench.manager.say(ManagerFrame(session=1, server_time=1.0, receipts=(receipt,)))
    assert (await launcher.hears(Receipts)).receipts == (receipt,)
    await launcher.channel.send(ReceiptsKept(ids=(receipt.statement.id,)))
    frame = await bench.until(lambda frame: bool(frame.receipts_kept))
    assert frame.receipts_kept == (receipt.statement.id,)


async def test_a_stop_reports_what_runs_and_says_so(launcher: Launcher, bench: Bench) -> None:
    await bench.attach()
    bench.say(offers=(bench.offer(1, "sleep 1000"),))
    await bench.until(runs(1))
    await launcher.channel.send(Stop(seconds=5))
    report = await bench.report(Key(job_id(1), 1))
    assert report.failure_class is FailureClass.VOLUNTEER_LEFT
    await launcher.hears_state("retired")
    async with asyncio.timeout(5):
        assert await launcher.guest == 0


async def test_a_drained_guest_says_so_and_can_be_undrained(
    launcher: Launcher, bench: Bench
) -> None:
    await bench.attach()
    await launcher.channel.send(Drain())
    await bench.until(lambda frame: frame.draining and frame.wants.cores == 0)
    await launcher.hears_state("drained")
    await launcher.channel.send(Drain(undo=True))
    await bench.until(lambda frame: frame.wants.cores == 2)


async def test_a_launcher_that_was_away_finds_the_guest_again(
    launcher: Launcher, bench: Bench
) -> None:
    await bench.attach()
    await launcher.ctrl.disconnect()
    assert (await launcher.hears(Hello)).epoch > 1
    await launcher.hears(Ready)
    await bench.attach()
    await launcher.hears_state("idle")
    await launcher.channel.send(Resumed(time=time.time()))
    assert (await launcher.hears(Hello)).epoch > 2


async def test_a_payload_gets_the_network_only_if_its_job_says_so(
    launcher: Launcher, bench: Bench
) -> None:
    await bench.attach()
    script = "echo ${HTTP_PROXY:-none} > result.txt"
    with_network = bench.offer(1, script, "result.txt")
    spec = with_network.spec.model_copy(update={"network": True})
    without = bench.offer(2, script, "result.txt")
    bench.say(offers=(with_network.model_copy(update={"spec": spec}), without))
    await bench.report(Key(job_id(1), 1))
    await bench.report(Key(job_id(2), 1))
    assert bench.output(1, "result.txt").startswith(b"http://job:")
    assert bench.output(2, "result.txt") == b"none\n"


def _receipt() -> Receipt:
    statement = Statement(
        key="A" * 43,
        id=make_id("r", 0, 1),
        enrolment=make_id("e", 0, 1),
        launcher="B" * 43,
        pilot=PILOT,
        experiment="demo",
        job=job_id(1),
        attempt=1,
        cpu_seconds=1.0,
        granted=0.1,
        leased_at=1.0,
        accepted_at=2.0,
    )
    return Receipt(statement=statement, signature="C" * 86)
