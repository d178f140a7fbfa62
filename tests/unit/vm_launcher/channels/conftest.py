"""Both ends of the channels joined without a VM, by something that behaves like QEMU's socket."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from copilot_agent.host_channel.net import NetChannel
from copilot_agent.host_channel.ports import Port
from vm_launcher.channels import NetServer
from vm_launcher.egress import AllowList, Egress, Entry


class ChardevPort(Port):
    """A port over a socket pair that, like a real one, reads empty while no host is connected."""

    host_present = False

    def present(self) -> bool:
        return self.host_present

    def read(self) -> bytes | None:
        data = super().read()
        return data if self.host_present else b""

    def write(self, data: memoryview) -> int:
        return super().write(data) if self.host_present else 0


class Chardev:
    """QEMU's `-chardev socket,server=on,wait=off`: one client at a time, its bytes to the port."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._inner, outer = socket.socketpair()
        self._inner.setblocking(False)
        self.port = ChardevPort(outer.detach())
        self._client: asyncio.StreamWriter | None = None
        self._one_at_a_time = asyncio.Lock()
        self._changed = asyncio.Condition()
        self.arrived = asyncio.Event()

    async def start(self) -> None:
        self._server = await asyncio.start_unix_server(self._serve, self.path)
        self._reading = asyncio.create_task(self._from_port())

    async def disconnect(self) -> None:
        """The launcher's end vanishes."""
        if (client := self._client) is not None:
            client.transport.abort()
            async with self._changed:
                await self._changed.wait_for(lambda: self._client is not client)

    async def inject(self, data: bytes) -> None:
        """Bytes that a guest of an earlier epoch had left under way."""
        assert self._client is not None
        self._client.write(data)

    async def inject_to_guest(self, data: bytes) -> None:
        await asyncio.get_running_loop().sock_sendall(self._inner, data)

    async def drained(self) -> None:
        assert self._client is not None
        await self._client.drain()

    async def close(self) -> None:
        self._reading.cancel()
        self._server.close()
        await self.disconnect()
        self._inner.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with self._one_at_a_time:
            await self._set_client(writer)
            self.arrived.set()
            with contextlib.suppress(ConnectionError):
                while data := await reader.read(65536):
                    await asyncio.get_running_loop().sock_sendall(self._inner, data)
            writer.close()
            await self._set_client(None)
            with contextlib.suppress(OSError):
                self._inner.send(b"\0")  # wakes the guest, as POLLHUP would

    async def _set_client(self, client: asyncio.StreamWriter | None) -> None:
        async with self._changed:
            self._client = client
            self.port.host_present = client is not None
            self._changed.notify_all()

    async def _from_port(self) -> None:
        loop = asyncio.get_running_loop()
        while data := await loop.sock_recv(self._inner, 65536):
            if self._client is not None:
                self._client.write(data)
                with contextlib.suppress(ConnectionError):
                    await self._client.drain()


Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Target:
    """A server that the guest may or may not reach."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self.connections = 0

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port: int = self._server.sockets[0].getsockname()[1]

    def close(self) -> None:
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        with contextlib.suppress(ConnectionError):
            await self._handler(reader, writer)
        writer.close()


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.write_eof()


class Pair:
    """A guest and a launcher whose allow-list is `entries`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._targets: list[Target] = []

    async def target(self, handler: Handler = echo) -> Target:
        target = Target(handler)
        await target.start()
        self._targets.append(target)
        return target

    async def start(self, *entries: Entry, egress: Egress | None = None, idle: float = 900) -> None:
        self.egress = egress or Egress(AllowList(entries))
        self.chardev = Chardev(self._folder / "net")
        await self.chardev.start()
        self.server = NetServer(self.chardev.path, self.egress, idle_seconds=idle)
        self.guest = NetChannel(1, self.chardev.port)
        await self.server.start()
        await self.guest.start()

    async def moved(self, size: int) -> None:
        """Returns when `size` bytes more have come in."""
        goal = self.egress.bytes_in + size
        while self.egress.bytes_in < goal:  # noqa: ASYNC110 - the accounts have no event
            await asyncio.sleep(0)

    async def close(self) -> None:
        await self.guest.close()
        await self.server.close()
        await self.chardev.close()
        for target in self._targets:
            target.close()


@pytest.fixture
async def pair(tmp_path: Path) -> AsyncIterator[Pair]:
    joined = Pair(tmp_path)
    yield joined
    await joined.close()


@pytest.fixture
async def chardev(tmp_path: Path) -> AsyncIterator[Chardev]:
    joined = Chardev(tmp_path / "ctrl")
    await joined.start()
    yield joined
    await joined.close()
