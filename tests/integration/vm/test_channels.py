"""Both channels between a real launcher's end and a real guest under QEMU."""

import asyncio
import hashlib
import json
import logging
import shutil
import subprocess
import time
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from copilot_agent.protocol import guest
from vm_launcher.channels import HostChannel, NetServer
from vm_launcher.drivers.base import Disk, Handle, VmSpec
from vm_launcher.drivers.qemu import QemuDriver
from vm_launcher.egress import AllowList, Egress, Entry
from vm_launcher.images import Image, load_image, read_public_key

pytestmark = pytest.mark.vm

log = logging.getLogger(__name__)

BLOCK = bytes(range(256)) * 256


class Server:
    """What the guest reaches: echoes, gives and takes."""

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port: int = self._server.sockets[0].getsockname()[1]

    def close(self) -> None:
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        command, _, size = (await reader.readline()).decode().strip().partition(" ")
        match command:
            case "echo":
                writer.write(await reader.read())
            case "give":
                for start in range(0, int(size), len(BLOCK)):
                    writer.write(BLOCK[: int(size) - start])
                    await writer.drain()
            case "take":
                digest = hashlib.sha256()
                while data := await reader.read(1 << 18):
                    digest.update(data)
                writer.write(digest.hexdigest().encode())
        writer.close()


class Guest:
    """A booted VM with the test agent, and the launcher's end of its channels."""

    def __init__(self, image: Image, agent: Path, directory: Path) -> None:
        self.driver = QemuDriver()
        self.spec = VmSpec(
            name="channels",
            directory=directory / "vm",
            ctrl_socket=directory / "ctrl",
            net_socket=directory / "net",
            kernel=image.kernel,
            initrd=image.initrd,
            command_line=image.command_line,
            disks=(
                Disk(serial="base", path=image.base),
                Disk(serial="agent", path=agent),
            ),
            image_sha256=image.sha256,
            memory_mib=384,
            disk_mib=64,
        )
        self.server = Server()
        self.handle: Handle | None = None

    async def start(self) -> None:
        await self.server.start()
        self.egress = Egress(AllowList([Entry("127.0.0.1", self.server.port)]))
        self.ctrl = HostChannel(self.spec.ctrl_socket)
        self.net = NetServer(self.spec.net_socket, self.egress)
        self.handle = await self.driver.create(self.spec)
        self.started_at = time.monotonic()
        self.handle = await self.driver.start(self.handle)
        await self.ctrl.connect()
        await self.net.start()
        self.heard: list[guest.GuestMessage] = []
        self.news = asyncio.Condition()
        self.listening = asyncio.create_task(self._listen())

    async def close(self) -> None:
        await self.ctrl.close()
        await self.net.close()
        self.listening.cancel()
        if self.handle is not None:
            await self.driver.destroy(self.handle)
        self.server.close()

    async def hear(self, wanted: Callable[[guest.GuestMessage], bool], seconds: float = 60) -> Any:
        """The first message not yet taken that `wanted` accepts."""
        async with asyncio.timeout(seconds), self.news:
            await self.news.wait_for(lambda: any(map(wanted, self.heard)))
        found = next(filter(wanted, self.heard))
        self.heard.remove(found)
        return found

    async def hello(self) -> guest.Hello:
        found: guest.Hello = await self.hear(lambda one: isinstance(one, guest.Hello))
        return found

    async def facts(self, key: str, seconds: float = 120) -> dict[str, Any]:
        """What the test agent reports in the message that has `key`."""
        found = await self.hear(
            lambda one: isinstance(one, guest.Log) and key in json.loads(one.message), seconds
        )
        facts: dict[str, Any] = json.loads(found.message)
        return facts

    async def cpu_seconds(self) -> float:
        assert self.handle is not None
        return (await self.driver.usage(self.handle)).cpu_seconds

    async def _listen(self) -> None:
        async for message in self.ctrl.messages():
            async with self.news:
                self.heard.append(message)
                self.news.notify_all()


@pytest.fixture(scope="module")
def image(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Image:
    directory = cache / "image"
    return load_image(
        directory,
        trusted_keys=[read_public_key(directory / "image-key.pub")],
        now=datetime.now(UTC),
        state=tmp_path_factory.mktemp("image"),
    )


@pytest.fixture(scope="module")
def agent(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An agent layer of the guest's end of the channels and a stand-in agent, nothing else."""
    tree = tmp_path_factory.mktemp("agent")
    package, source = tree / "copilot_agent", repository / "copilot_agent"
    for part in ("protocol", "host_channel"):
        shutil.copytree(source / part, package / part, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copyfile(source / "__init__.py", package / "__init__.py")
    stand_in = Path(__file__).with_name("channels_agent") / "__main__.py"
    shutil.copyfile(stand_in, package / "__main__.py")
    for path in [tree, *tree.rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)
    layer = tmp_path_factory.mktemp("layer") / "agent.squashfs"
    packing = ["/usr/bin/mksquashfs", str(tree), str(layer), "-all-root", "-quiet", "-no-progress"]
    subprocess.run(packing, check=True)
    return layer


@pytest.fixture
async def vm(image: Image, agent: Path, tmp_path: Path) -> AsyncIterator[Guest]:
    booted = Guest(image, agent, tmp_path)
    try:
        await booted.start()
        yield booted
    finally:
        await booted.close()


def welcome(port: int) -> guest.Welcome:
    return guest.Welcome(
        time=time.time(),
        manager=f"http://127.0.0.1:{port}",
        cores=1,
        memory_mib=100,
        disk_mib=10,
    )


async def test_a_guests_whole_conversation(vm: Guest) -> None:
    hello = await vm.hello()
    log.info("hello %.2f s after the start of QEMU", time.monotonic() - vm.started_at)
    assert hello.epoch == 1
    assert not hello.restarted
    assert 0 < hello.boot_seconds < 60
    ready = await vm.facts("ready_seconds")
    await vm.ctrl.send(welcome(vm.server.port))
    assert (await vm.facts("first_echo"))["first_echo"] == "first"

    sequential = await vm.facts("sequential_seconds")
    await vm.facts("parallel")
    cpu = [await vm.cpu_seconds()]
    came_in = await vm.facts("in_bytes")
    cpu.append(await vm.cpu_seconds())
    size = came_in["in_bytes"]
    assert size == 10_000_000
    expected = hashlib.sha256((BLOCK * (size // len(BLOCK) + 1))[:size]).hexdigest()
    assert came_in["in_sha256"] == expected
    went_out = await vm.facts("out_same")
    cpu.append(await vm.cpu_seconds())
    assert went_out["out_same"]
    assert vm.egress.bytes_in > size
    assert vm.egress.bytes_out > size

    log.info("QEMU's CPU seconds: %.1f in, %.1f out", cpu[1] - cpu[0], cpu[2] - cpu[1])
    log.info("measured: %s", ready | sequential | came_in | went_out)
    await check_refusals(vm)
    await check_the_launchers_return(vm)
    await check_a_pause(vm)
    await check_a_new_agent(vm)


async def check_refusals(vm: Guest) -> None:
    refused = (await vm.facts("refused"))["refused"]
    assert refused == {
        "127.0.0.1 ": "loopback_address",
        "127.0.0.1 near": "loopback_address",
        "localhost ": "not_listed",
        "::1 ": "loopback_address",
        "10.0.2.2 ": "private_address",
        "192.168.1.1 ": "private_address",
        "169.254.169.254 ": "link_local_address",
        "example.org ": "not_listed",
    }
    assert vm.egress.snapshot()["refused"] == 8


async def check_the_launchers_return(vm: Guest) -> None:
    """As if the launcher's ends had broken: both come back without the guest's restart."""
    await vm.net.close()
    vm.net = NetServer(vm.spec.net_socket, vm.egress)
    await vm.net.start()
    await vm.ctrl.send(guest.Drain())
    assert (await vm.facts("echo"))["echo"] == "once more"

    await vm.ctrl.close()
    vm.listening.cancel()
    vm.ctrl = HostChannel(vm.spec.ctrl_socket)
    await asyncio.sleep(0.5)  # a guest under emulation needs a moment to see the port closed
    vm.listening = asyncio.create_task(vm._listen())
    assert (await vm.hello()).epoch == 2
    await vm.ctrl.send(guest.Drain())
    assert (await vm.facts("echo"))["echo"] == "once more"


async def check_a_pause(vm: Guest) -> None:
    assert vm.handle is not None
    vm.handle = await vm.driver.pause(vm.handle)
    vm.handle = await vm.driver.resume(vm.handle)
    await vm.ctrl.send(guest.Resumed(time=time.time()))
    hello = await vm.hello()
    await vm.net.reset(hello.epoch)
    assert (await vm.facts("echo"))["echo"] == "after the pause"


async def check_a_new_agent(vm: Guest) -> None:
    """The agent dies with a transfer under way; its successor finds clean channels."""
    await vm.ctrl.send(guest.Stop())
    hello = await vm.hello()
    assert hello.restarted
    await vm.net.reset(hello.epoch)
    await vm.facts("ready_seconds")
    await vm.ctrl.send(welcome(vm.server.port))
    assert (await vm.facts("first_echo"))["first_echo"] == "first"
