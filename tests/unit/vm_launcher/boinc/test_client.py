"""The client as its task sees it, at a clock that the test moves."""

import os
import subprocess
import sys
from pathlib import Path
from subprocess import PIPE

import pytest

from vm_launcher.boinc.client import (
    Client,
    ClientEvent,
    ClientGone,
    MemoryLimit,
    NetworkSwitched,
    Ordered,
    TrickleDown,
)
from vm_launcher.boinc.errors import InitDataError
from vm_launcher.boinc.messages import AppStatus, Order
from vm_launcher.boinc.shared_memory import FILE_BYTES, Channel, MessageFile
from vm_launcher.boinc.slot import Slot
from vm_launcher.boinc.watch import ClientWatch

STATUS = AppStatus(cpu_seconds=1, checkpoint_cpu_seconds=1, fraction_done=0.5)


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def theirs(tmp_path: Path) -> MessageFile:
    """The client's end."""
    (tmp_path / "boinc_mmap_file").write_bytes(bytes(FILE_BYTES))
    return MessageFile(tmp_path / "boinc_mmap_file")


def attach(slot: Path, clock: Clock, pid: int = os.getpid()) -> Client:
    data = f"<shm_key>-1</shm_key><client_pid>{pid}</client_pid>"
    (slot / "init_data.xml").write_text(f"<app_init_data>{data}</app_init_data>")
    return Client.attach(Slot(slot), clock)


def beat(text: str = "") -> str:
    return f"<heartbeat/><wss>0</wss><max_wss>4e9</max_wss>{text}"


def test_what_the_client_says_is_told_once(
    tmp_path: Path, clock: Clock, theirs: MessageFile
) -> None:
    client = attach(tmp_path, clock)
    assert client.poll() == []
    theirs.send(Channel.PROCESS_CONTROL_REQUEST, "<suspend/>")
    theirs.send(Channel.HEARTBEAT, beat("<network_suspended/>"))
    (tmp_path / "trickle_down_1").write_text("hello")
    theirs.send(Channel.TRICKLE_DOWN, "<have_trickle_down/>")
    expected: list[ClientEvent] = [
        NetworkSwitched(suspended=True),
        MemoryLimit(4e9),
        TrickleDown("hello"),
        Ordered(Order.SUSPEND),
    ]
    assert client.poll() == expected
    assert client.poll() == []
    theirs.send(Channel.HEARTBEAT, beat("<network_suspended/>"))
    assert client.poll() == []
    theirs.send(Channel.HEARTBEAT, beat())
    assert client.poll() == [NetworkSwitched(suspended=False)]


def test_a_status_waits_for_the_client(tmp_path: Path, clock: Clock, theirs: MessageFile) -> None:
    client = attach(tmp_path, clock)
    assert client.reported()
    assert client.report(STATUS)
    assert not client.reported()
    assert not client.report(STATUS)
    assert "<fraction_done>5.0" in (theirs.receive(Channel.APP_STATUS) or "")
    assert client.reported()
    assert client.report(STATUS)


def test_the_page_is_offered_until_there_is_room(
    tmp_path: Path, clock: Clock, theirs: MessageFile
) -> None:
    client = attach(tmp_path, clock)
    theirs.send(Channel.GRAPHICS_REPLY, "occupied")
    client.offer_page("http://127.0.0.1:8080/")
    client.poll()
    assert theirs.receive(Channel.GRAPHICS_REPLY) == "occupied"
    client.poll()
    client.poll()
    page = "<web_graphics_url>http://127.0.0.1:8080/</web_graphics_url>"
    assert theirs.receive(Channel.GRAPHICS_REPLY) == page
    assert theirs.receive(Channel.GRAPHICS_REPLY) is None


def test_a_trickle_of_an_earlier_episode(tmp_path: Path, clock: Clock, theirs: MessageFile) -> None:
    attach(tmp_path, clock).trickle_up("copilot_runtime", "<runtime>5</runtime>", "5")
    client = attach(tmp_path, clock)
    assert (client.trickles_pending(), client.trickle_mark()) == (1, "5")
    client.poll()
    clock.now += 2
    client.poll()
    assert theirs.receive(Channel.TRICKLE_UP) == "<have_new_trickle_up/>\n"
    (tmp_path / "trickle_up.xml").unlink()
    client.poll()
    assert (client.trickles_pending(), client.trickle_mark()) == (0, "5")


def test_the_death_of_the_client_is_told_once(
    tmp_path: Path, clock: Clock, theirs: MessageFile
) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=PIPE) as process:
        client = attach(tmp_path, clock, process.pid)
        clock.now += 1000
        assert client.poll() == [], "a client that is held up sends no heartbeats"
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert client.poll() == [ClientGone(f"the BOINC client (pid {process.pid}) has ended")], (
            "it is a zombie now"
        )
        assert client.poll() == []


def test_a_process_that_has_ended_before(clock: Clock) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    assert "has ended" in (ClientWatch(process.pid, 0).gone(0) or "")


def test_another_process_with_the_clients_pid(monkeypatch: pytest.MonkeyPatch) -> None:
    watch = ClientWatch(os.getpid(), 0)
    assert watch.gone(0) is None
    monkeypatch.setattr("vm_launcher.boinc.watch._start_ticks", lambda pid: 10**12)
    assert watch.gone(0) is not None


def test_a_client_without_a_pid_by_its_heartbeats(
    tmp_path: Path, clock: Clock, theirs: MessageFile
) -> None:
    client = attach(tmp_path, clock, pid=0)
    clock.now += 30
    theirs.send(Channel.HEARTBEAT, "<heartbeat/>")
    assert client.poll() == []
    clock.now += 29
    theirs.send(Channel.HEARTBEAT, "no beat")
    assert client.poll() == []
    clock.now += 2
    assert client.poll() == [ClientGone("no heartbeat of the BOINC client for 30 s")]


def test_a_slot_without_init_data(tmp_path: Path, clock: Clock) -> None:
    with pytest.raises(InitDataError, match="cannot be read"):
        Client.attach(Slot(tmp_path), clock)
