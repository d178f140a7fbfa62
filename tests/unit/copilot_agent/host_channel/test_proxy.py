"""The payload's proxy: who may use it, what it forwards, what it refuses."""

import asyncio
import base64
import contextlib
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import pytest

from copilot_agent.host_channel.errors import EgressRefusedError
from copilot_agent.host_channel.proxy import Proxy


class Origin:
    """Answers each request with what it was sent."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, int]] = []
        self.heads: list[bytes] = []

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port: int = self._server.sockets[0].getsockname()[1]

    async def dial(self, host: str, port: int) -> socket.socket:
        """Every allowed name leads here."""
        self.asked.append((host, port))
        if host == "forbidden.example":
            raise EgressRefusedError("not_listed", host, port)
        if host == "down.example":
            raise ConnectionRefusedError
        sock = socket.socket()
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", self.port))
        return sock

    def close(self) -> None:
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError):
            self.heads.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello")
        writer.close()


@pytest.fixture
async def origin() -> AsyncIterator[Origin]:
    started = Origin()
    await started.start()
    yield started
    started.close()


@pytest.fixture
async def proxy(origin: Origin) -> AsyncIterator[Proxy]:
    async with Proxy(origin.dial) as started:
        yield started


def password(proxy: Proxy) -> bytes:
    parts = urlsplit(proxy.url)
    basic = base64.b64encode(f"{parts.username}:{parts.password}".encode())
    return b"Proxy-Authorization: Basic " + basic + b"\r\n"


async def ask(proxy: Proxy, request: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", urlsplit(proxy.url).port)
    writer.write(request)
    answer = b""
    with contextlib.suppress(ConnectionError):
        answer = await asyncio.wait_for(reader.read(), 10)
    writer.close()
    return answer


async def test_absolute_form_reaches_the_origin_without_the_password(
    proxy: Proxy, origin: Origin
) -> None:
    answer = await ask(
        proxy,
        b"GET http://Data.example:8080/a/b?c=d HTTP/1.1\r\nHost: data.example:8080\r\n"
        b"X-Own: kept\r\nConnection: keep-alive\r\n" + password(proxy) + b"\r\n",
    )
    assert answer.startswith(b"HTTP/1.1 200 OK")
    assert answer.endswith(b"hello")
    assert origin.asked == [("data.example", 8080)]
    (head,) = origin.heads
    assert head.startswith(b"GET /a/b?c=d HTTP/1.1\r\n")
    assert b"X-Own: kept" in head
    assert b"Connection: close" in head
    assert b"keep-alive" not in head
    assert b"Proxy-Authorization" not in head


async def test_connect_opens_a_tunnel(proxy: Proxy, origin: Origin) -> None:
    parts = urlsplit(proxy.url)
    reader, writer = await asyncio.open_connection("127.0.0.1", parts.port)
    writer.write(b"CONNECT secure.example:443 HTTP/1.1\r\n" + password(proxy) + b"\r\n")
    assert b" 200 " in await reader.readuntil(b"\r\n\r\n")
    writer.write(b"anything at all\r\n\r\n")
    assert (await reader.read()).endswith(b"hello")
    assert origin.heads == [b"anything at all\r\n\r\n"]
    assert origin.asked == [("secure.example", 443)]
    writer.close()


@pytest.mark.parametrize(
    "header",
    [b"", b"Proxy-Authorization: Basic am9iOndyb25n\r\n", b"Proxy-Authorization: Bearer x\r\n"],
)
async def test_without_the_jobs_password_nothing_is_dialled(
    proxy: Proxy, origin: Origin, header: bytes
) -> None:
    answer = await ask(proxy, b"GET http://data.example/ HTTP/1.1\r\n" + header + b"\r\n")
    assert answer.startswith(b"HTTP/1.1 407 ")
    assert origin.asked == []


async def test_another_jobs_password_does_not_fit(proxy: Proxy, origin: Origin) -> None:
    async with Proxy(origin.dial) as other:
        request = b"GET http://data.example/ HTTP/1.1\r\n" + password(other) + b"\r\n"
        assert (await ask(proxy, request)).startswith(b"HTTP/1.1 407 ")


@pytest.mark.parametrize(
    ("request_line", "status"),
    [
        (b"GET http://forbidden.example/ HTTP/1.1", b"403"),
        (b"CONNECT forbidden.example:443 HTTP/1.1", b"403"),
        (b"GET http://down.example/ HTTP/1.1", b"502"),
        (b"GET /relative HTTP/1.1", b"400"),
        (b"GET ftp://data.example/ HTTP/1.1", b"400"),
        (b"GET http://data.example:99999/ HTTP/1.1", b"400"),
        (b"GET http:///nothing HTTP/1.1", b"400"),
        (b"CONNECT data.example HTTP/1.1", b"400"),
        (b"GET http://data.example/\xff HTTP/1.1", b"400"),
        (b"GET http://data.example/ HTTP/3", b"400"),
        (b"nonsense", b"400"),
        (b"GET http://data.example/ HTTP/1.1\r\nno colon", b"400"),
        (b"GET http://data.example/ HTTP/1.1\r\n folded: x", b"400"),
        (b"GET http://data.example/ HTTP/1.1" + b"\r\nX: y" * 101, b"431"),
        (b"GET http://data.example/ HTTP/1.1\r\nX: " + b"y" * 40_000, b"431"),
    ],
)
async def test_what_cannot_be_forwarded_is_answered_with_a_reason(
    proxy: Proxy, request_line: bytes, status: bytes
) -> None:
    answer = await ask(proxy, request_line + b"\r\n" + password(proxy) + b"\r\n")
    assert answer.startswith(b"HTTP/1.1 " + status + b" ")


async def test_the_reason_of_a_refusal_is_told(proxy: Proxy) -> None:
    request = b"GET http://forbidden.example/ HTTP/1.1\r\n" + password(proxy) + b"\r\n"
    assert b"Copilot-Refused: not_listed" in await ask(proxy, request)


async def test_an_ordinary_program_finds_its_way_by_the_environment(
    proxy: Proxy, origin: Origin
) -> None:
    program = "import urllib.request as u; print(u.urlopen('http://data.example/x').read())"
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", program],
        env=proxy.environment(),
        capture_output=True,
        check=True,
    )
    assert done.stdout.strip() == b"b'hello'"
    assert origin.asked == [("data.example", 80)]


async def test_after_close_nobody_listens(origin: Origin) -> None:
    async with Proxy(origin.dial) as proxy:
        port = urlsplit(proxy.url).port
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", port)
