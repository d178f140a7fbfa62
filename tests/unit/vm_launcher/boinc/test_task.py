"""A whole task over the fake driver; the test plays the client."""

import asyncio
import errno
import os
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.harness.receipts import ReceiptMaker, lines
from tests.unit.vm_launcher.images.conftest import SmallImage
from vm_launcher import assembly
from vm_launcher.boinc import task
from vm_launcher.boinc.shared_memory import FILE_BYTES, Channel, MessageFile
from vm_launcher.drivers.base import Fingerprint, Handle
from vm_launcher.drivers.fake import FakeDriver
from vm_launcher.images import load_image
from vm_launcher.images.signing import public_pem

SETTINGS = 'manager = "http://127.0.0.1:9"\n'
IDLE_SOON = SETTINGS + "[task]\nidle_seconds = 1\n"
OVER_SOON = SETTINGS + "[task]\ntask_seconds = 1\n"


class PlayedClient:
    """A slot, and the client's end of its shared memory."""

    def __init__(self, home: Path) -> None:
        self.slot = home / "slots" / "0"
        self.project = home / "projects" / "p"
        self.slot.mkdir(parents=True)
        self.project.mkdir(parents=True)
        image = SmallImage(home / "image").make()
        self.put("image-key.pub", public_pem(image.key.public_key()))
        self.put("manifest.json", (image.directory / "manifest.json").read_bytes())
        self.put("manifest.json.sig", (image.directory / "manifest.json.sig").read_bytes())
        for role, name in task_layers():
            self.put(name, image.plain(role))
        self.put("enrolment", b"s" * 43 + b"\n")
        self.put("launcher.toml", SETTINGS.encode())
        self.link("receipts")
        self.prefer("")

    def put(self, name: str, data: bytes) -> None:
        (self.project / f"{name}.7").write_bytes(data)
        self.link(name)

    def link(self, name: str) -> None:
        (self.slot / name).write_text(f"<soft_link>../../projects/p/{name}.7</soft_link>\n")

    def prefer(self, preferences: str, pid: int | None = None) -> None:
        (self.slot / "init_data.xml").write_text(
            f"<app_init_data><shm_key>-1</shm_key><client_pid>{pid or os.getpid()}</client_pid>"
            f"<project_dir>{self.project}</project_dir><wu_cpu_time>50</wu_cpu_time>"
            f"<global_preferences>{preferences}</global_preferences></app_init_data>"
        )

    @asynccontextmanager
    async def started(self) -> AsyncIterator["Started"]:
        (self.slot / "boinc_mmap_file").write_bytes(bytes(FILE_BYTES))
        memory = MessageFile(self.slot / "boinc_mmap_file")
        running = asyncio.create_task(task.run(self.slot))
        try:
            yield Started(self.slot, memory, running)
        finally:
            running.cancel()
            await asyncio.wait([running])
            memory.close()

    async def whole(self) -> int:
        """A task that ends by itself."""
        async with self.started() as started:
            return await started.end()

    def said(self, name: str) -> list[str]:
        return (self.slot / name).read_text().splitlines()


def task_layers() -> list[tuple[str, str]]:
    return [
        ("kernel", "vmlinux"),
        ("initrd", "initrd"),
        ("base", "base.squashfs"),
        ("agent", "agent.squashfs"),
    ]


class Started:
    def __init__(self, slot: Path, memory: MessageFile, running: asyncio.Task[int]) -> None:
        self._status = slot / "launcher" / "status.json"
        self._memory = memory
        self._running = running
        self.statuses = ["<fraction_done>0"]

    def order(self, text: str) -> None:
        assert self._memory.send(Channel.PROCESS_CONTROL_REQUEST, f"<{text}/>")

    def beat(self, text: str = "") -> None:
        self._memory.send(Channel.HEARTBEAT, f"<heartbeat/><max_wss>1e9</max_wss>{text}")

    async def until(self, true: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while not true():
                assert not self._running.done(), "it has ended"
                self._read()
                await asyncio.sleep(0.02)

    async def state(self, word: str) -> None:
        await self.until(lambda: self.has(f'"state": "{word}"'))

    async def guest(self, word: str) -> None:
        await self.until(lambda: self.has(f'"guest_state": "{word}"'))

    async def end(self) -> int:
        async with asyncio.timeout(20):
            while not self._running.done():
                self._read()
                await asyncio.wait([self._running], timeout=0.05)
        self._read()
        return self._running.result()

    def has(self, text: str) -> bool:
        return self._status.exists() and text in self._status.read_text()

    def _read(self) -> None:
        if (text := self._memory.receive(Channel.APP_STATUS)) is not None:
            self.statuses.append(text)


def value(status: str, tag: str) -> float:
    return float(status.partition(f"<{tag}>")[2].partition("<")[0])


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Iterator[PlayedClient]:
    monkeypatch.setenv("TMPDIR", "")
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(assembly, "load_driver", lambda _: FakeDriver())
    early = load_image
    now = datetime(2026, 6, 1, tzinfo=UTC)
    monkeypatch.setattr(assembly, "load_image", lambda *a, **k: early(*a, **{**k, "now": now}))
    home = Path(tempfile.mkdtemp(prefix="task-"))
    yield PlayedClient(home)
    shutil.rmtree(home)


def left_running(client: PlayedClient) -> set[str]:
    """What should not be there once a task has ended."""
    found = {path.name for path in client.slot.rglob("*")}
    return found & {"boinc_lockfile", "vm", "handle.json", "ctrl", "net", "sockets"}


async def test_suspend_resume_and_what_the_client_sees(client: PlayedClient) -> None:
    async with client.started() as task:
        await task.guest("idle")
        await task.until(
            lambda: bool(task.statuses) and value(task.statuses[-1], "fraction_done") > 0
        )
        assert value(task.statuses[-1], "current_cpu_time") >= 50
        assert value(task.statuses[-1], "checkpoint_cpu_time") == 50
        task.order("suspend")
        await task.state("paused")
        task.order("resume")
        await task.state("running")
        task.order("abort")
        assert await task.end() == 194
    assert left_running(client) == set()
    assert not (client.slot / "boinc_finish_called").exists()


async def test_a_quit_is_gone_on_with(client: PlayedClient) -> None:
    async with client.started() as task:
        await task.guest("idle")
        task.order("quit")
        assert await task.end() == 0
    last = task.statuses[-1]
    assert value(last, "checkpoint_cpu_time") == value(last, "current_cpu_time") > 50
    assert "handle.json" in left_running(client), "the saved VM waits for the next start"
    assert not (client.slot / "boinc_temporary_exit").exists()
    async with client.started() as task:
        await task.until(lambda: not task.has('"restore_seconds": null'))
        await task.until(lambda: len(task.statuses) > 1)
        task.order("abort")
        await task.end()
    used = value(last, "current_cpu_time")
    assert value(task.statuses[1], "checkpoint_cpu_time") >= used, "told again, should it be lost"


async def test_a_client_that_is_gone_is_as_one_that_quits(client: PlayedClient) -> None:
    other = await asyncio.create_subprocess_exec("sleep", "60")
    client.prefer("", pid=other.pid)
    async with client.started() as task:
        await task.guest("idle")
        other.kill()
        await other.wait()
        assert await task.end() == 0
    assert "handle.json" in left_running(client)


async def test_a_computer_that_shuts_down_is_as_a_client_that_quits(client: PlayedClient) -> None:
    async with client.started() as task:
        await task.guest("idle")
        os.kill(os.getpid(), signal.SIGTERM)
        assert await task.end() == 0
    assert "handle.json" in left_running(client)


async def test_an_idle_vm_frees_the_processor(client: PlayedClient) -> None:
    client.put("launcher.toml", IDLE_SOON.encode())
    assert await client.whole() == 0
    reason = "waiting for work, your processor is free"
    assert client.said("boinc_temporary_exit") == ["600", reason]


async def test_a_task_without_any_job_says_so(client: PlayedClient) -> None:
    client.put("launcher.toml", OVER_SOON.encode())
    assert await client.whole() == 207
    assert client.said("boinc_finish_called")[:2] == ["207", "no job came"]
    assert left_running(client) == set()


async def test_the_network_switch_and_new_preferences(client: PlayedClient) -> None:
    async with client.started() as task:
        await task.guest("idle")
        task.beat("<network_suspended/>")
        await task.until(lambda: task.has('"network_enabled": false'))
        task.beat()
        await task.until(lambda: task.has('"network_enabled": true'))
        client.prefer("<cpu_usage_limit>40</cpu_usage_limit>")
        task.order("reread_app_info")
        await task.until(lambda: task.has('"cpu_percent": 40'))


async def test_a_fault_of_the_launcher_loses_no_receipts(
    client: PlayedClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def pause(*_: object) -> Handle:
        raise RuntimeError("a bug")

    monkeypatch.setattr(FakeDriver, "pause", pause)
    signed = ReceiptMaker()
    kept = lines([signed.alone(signed.statement())])
    (client.slot / "launcher").mkdir()
    (client.slot / "launcher" / "receipts.jsonl").write_bytes(kept)
    async with client.started() as task:
        await task.guest("idle")
        task.order("suspend")
        assert await task.end() == 0
    assert (client.project / "receipts.7").read_bytes() == kept
    assert client.said("boinc_finish_called")[:2] == ["0", "the launcher failed: a bug"]
    assert left_running(client) == set()


async def test_a_host_without_qemu_is_told_the_package(
    client: PlayedClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = Fingerprint("qemu", "", "", "QEMU is not installed", "apt install qemu-system-x86")

    async def fingerprint(_: FakeDriver) -> Fingerprint:
        return missing

    monkeypatch.setattr(FakeDriver, "fingerprint", fingerprint)
    assert await client.whole() == 0
    words = "QEMU is not installed. Try: apt install qemu-system-x86"
    assert client.said("boinc_temporary_exit") == ["86400", words, "notice"]


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("base.squashfs", b"damaged", "base differs from the signed manifest"),
        ("manifest.json", b"{}", "manifest"),
        ("enrolment", b"short\n", "no enrolment secret"),
        ("enrolment", None, "enrolment secret cannot be read"),
        ("launcher.toml", b"manager = 7\n", "manager"),
        ("launcher.toml", b"manager = " + b"[" * 20_000, "is not valid TOML: maximum"),
        ("launcher.toml", b'manager = "http://["\n', "host:port"),
    ],
)
async def test_what_cannot_start_ends_the_task_with_the_reason(
    client: PlayedClient, name: str, data: bytes | None, words: str
) -> None:
    if data is None:
        (client.project / f"{name}.7").unlink()
    else:
        client.put(name, data)
    assert await client.whole() == 206
    code, message, notice = client.said("boinc_finish_called")
    assert (code, notice) == ("206", "notice")
    assert words in message
    assert message.endswith("Try: reset the project in the BOINC manager")
    assert left_running(client) == set()


@pytest.mark.parametrize("mark", ["many", "nan", "-5.0", "inf"])
async def test_what_trickles_have_told_is_not_guessed(client: PlayedClient, mark: str) -> None:
    (client.slot / "copilot_trickles.json").write_text(f'{{"mark": "{mark}"}}')
    assert await client.whole() == 206
    assert "unknown what has been reported" in client.said("boinc_finish_called")[1]


async def test_no_memory_for_a_vm(client: PlayedClient) -> None:
    client.prefer("<ram_max_used_busy_pct>1</ram_max_used_busy_pct>")
    text = (client.slot / "init_data.xml").read_text()
    host = "<host_info><m_nbytes>4e9</m_nbytes></host_info></app_init_data>"
    (client.slot / "init_data.xml").write_text(text.replace("</app_init_data>", host))
    assert await client.whole() == 0
    delay, reason, notice = client.said("boinc_temporary_exit")
    assert (delay, notice) == ("86400", "notice")
    assert "allow BOINC more memory" in reason


async def test_a_full_disk_at_its_start_is_no_failure(
    client: PlayedClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> Path:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(task, "collect_image", full)
    assert await client.whole() == 0
    words = "the disk of the BOINC client is full"
    assert client.said("boinc_temporary_exit") == ["3600", words, "notice"]


async def test_no_room_to_say_that_it_waits_is_no_failure(client: PlayedClient) -> None:
    client.put("launcher.toml", IDLE_SOON.encode())
    (client.slot / "boinc_temporary_exit.part").mkdir()  # as good as no room
    assert await client.whole() == 0
    assert "handle.json" in left_running(client), "the VM is kept for the next start"


async def test_no_room_to_say_that_it_has_finished_loses_no_receipts(client: PlayedClient) -> None:
    client.put("launcher.toml", OVER_SOON.encode())
    maker = ReceiptMaker()
    (client.slot / "launcher").mkdir()
    (client.slot / "launcher" / "receipts.jsonl").write_bytes(maker.file(2) + b'{"torn":')
    (client.slot / "boinc_finish_called.part").mkdir()  # as good as no room
    assert await client.whole() == 0, "it is to be started again"
    (client.slot / "boinc_finish_called.part").rmdir()
    assert await client.whole() == 0
    assert client.said("boinc_finish_called") == ["0"]
    assert (client.project / "receipts.7").read_bytes() == maker.file(2)
