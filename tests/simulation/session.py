"""The agent's HTTP session over a simulated line: what our transports use of aiohttp's."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from tests.simulation.loop import Machine
from tests.simulation.wire import DOWN, PATIENCE, UP, Line, Pipe
from tests.simulation.xmpp_server import XmppServer

PREFIX = "http://manager"


@dataclass(eq=False)
class Request:
    """One HTTP request as the manager sees it."""

    path: str
    token: str
    wait: float
    body: bytes
    answer: Callable[[int, bytes], None]
    gone: bool = False
    """The client has hung up."""
    noticed: Callable[[], None] = lambda: None
    """What the manager does about that."""

    def hang_up(self) -> None:
        self.gone = True
        self.noticed()


@dataclass(eq=False)
class Socket:
    """One WebSocket; each end sends text, and `None` or a close code at last."""

    token: str
    up: Pipe = field(init=False)
    down: Pipe = field(init=False)
    to_server: Callable[[Any], None] = lambda _: None


class Server:
    """What lines lead to; nobody listens while `door` is None."""

    def __init__(self, xmpp: XmppServer | None) -> None:
        self.door: Any = None
        self.xmpp = xmpp
        """Beside it, where pilots talk over XMPP."""


class Content:
    def __init__(self, body: bytes) -> None:
        self._body = body

    async def iter_chunked(self, size: int) -> AsyncIterator[bytes]:
        yield self._body


class Response:
    def __init__(self, status: int, body: bytes) -> None:
        self.status = status
        self.reason = str(status)
        self.headers: dict[str, str] = {}
        self.content = Content(body)

    def close(self) -> None: ...


class ClientSocket:
    """The client's end, as `aiohttp.ClientWebSocketResponse` shows itself."""

    def __init__(self, socket: Socket, said: Callable[[str], None]) -> None:
        self._socket = socket
        self._said = said
        self.inbox: asyncio.Queue[str | int | None] = asyncio.Queue()
        self._closed = False
        self.close_code: int | None = None

    async def send_str(self, text: str) -> None:
        if self._closed:
            raise ConnectionResetError("the connection is closed")
        self._said(text)
        self._socket.up.send(text)

    async def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._socket.up.send(None)
            self.inbox.put_nowait(None)

    def __aiter__(self) -> "ClientSocket":
        return self

    async def __anext__(self) -> Any:
        item = await self.inbox.get()
        if isinstance(item, str):
            return aiohttp.WSMessage(aiohttp.WSMsgType.TEXT, item, None)
        self.close_code = item if isinstance(item, int) else 1006
        self._closed = True
        self._socket.up.send(None)
        raise StopAsyncIteration


class SimulatedSession:
    """Of one agent process; `heard` and `said` are told each frame that comes and goes, as text."""

    def __init__(
        self,
        machine: Machine,
        line: Line,
        server: Server,
        heard: Callable[[str], None],
        said: Callable[[str], None],
    ) -> None:
        self._machine = machine
        self._line = line
        self._server = server
        self._heard = heard
        self._said = said
        self._sockets: list[Socket] = []
        self._requests: list[Request] = []

    def died(self) -> None:
        """The process is gone; its system closes what it had open."""
        for socket in self._sockets:
            socket.up.send(None)
        for request in self._requests:
            request.hang_up()

    # ----- WebSocket

    async def ws_connect(self, url: str, *, headers: dict[str, str], **_: Any) -> ClientSocket:
        answer: asyncio.Future[ClientSocket] = self._machine.loop.create_future()
        token = headers["Authorization"].removeprefix("Bearer ")
        self._line.pass_on(UP, lambda: self._upgrade(token, answer))
        return await answer

    def _upgrade(self, token: str, answer: "asyncio.Future[ClientSocket]") -> None:
        door = self._server.door
        if door is None:
            refusal: Exception = aiohttp.ClientConnectionError("connection refused")
        elif not self._line.sockets_pass:
            refusal = aiohttp.WSServerHandshakeError(_request_info(), (), status=403, message="no")
        else:
            socket = Socket(token)
            client = ClientSocket(socket, self._said)
            self._open(door, socket, client)
            self._line.pass_on(DOWN, lambda: self._machine.answer(answer, client))
            return
        self._line.pass_on(DOWN, lambda: self._machine.answer(answer, refusal))

    def _open(self, door: Any, socket: Socket, client: ClientSocket) -> None:
        def deliver(item: str | int | None) -> None:
            if isinstance(item, str):
                self._heard(item)
            self._machine.tell(client.inbox, item)

        socket.up = Pipe(self._line, UP, lambda item: socket.to_server(item), PATIENCE[UP])
        socket.down = Pipe(self._line, DOWN, deliver, PATIENCE[DOWN])
        self._sockets.append(socket)
        door.accept(socket)

    # ----- requests

    @asynccontextmanager
    async def post(
        self,
        url: str,
        *,
        data: Any,
        params: dict[str, str] | None = None,
        headers: dict[str, str] | None = None,
        timeout: aiohttp.ClientTimeout | None = None,
        **_: Any,
    ) -> AsyncIterator[Response]:
        body = data if isinstance(data, bytes) else b"".join([piece async for piece in data])
        path = url.removeprefix(PREFIX)
        if path.endswith("/frames"):
            self._said(body.decode())
        token = (headers or {}).get("Authorization", "").removeprefix("Bearer ")
        wait = float((params or {}).get("wait", "0"))
        seconds = (timeout.total if timeout else None) or 60.0
        yield await self._exchange(path, token, wait, body, seconds)

    async def put(self, path: str) -> None:
        """A file's upload: small, whole, and there when this returns."""
        response = await self._exchange(path, "", 0.0, b"", 60.0)
        if response.status != 200:
            raise aiohttp.ClientConnectionError(f"HTTP {response.status}")

    async def _exchange(
        self, path: str, token: str, wait: float, body: bytes, seconds: float
    ) -> Response:
        answer: asyncio.Future[Response] = self._machine.loop.create_future()
        line, chance = self._line, self._line.universe.random

        def answered(status: int, reply: bytes) -> None:
            if chance.random() < line.loss:
                lost(5.0)
                return
            line.pass_on(DOWN, lambda: arrived(status, reply))

        def arrived(status: int, reply: bytes) -> None:
            if path.endswith("/frames") and status == 200:
                self._heard(reply.decode())
            self._machine.answer(answer, Response(status, reply))

        def lost(after: float) -> None:
            error = aiohttp.ServerDisconnectedError()
            line.universe.after(after, self._machine.answer, answer, error)

        request = Request(path, token, wait, body, answered)
        self._requests.append(request)
        if chance.random() < line.loss:
            lost(chance.choice((0.1, 10.0)))
        else:
            line.pass_on(UP, lambda: self._arrives(request, lost))
        if chance.random() < line.twice:
            again = Request(path, token, wait, body, lambda _status, _body: None)
            again.gone = True
            line.universe.after(1.0, line.pass_on, UP, lambda: self._arrives(again, lambda _: None))
        try:
            async with asyncio.timeout(seconds):
                return await answer
        finally:
            request.hang_up()
            self._requests.remove(request)

    def _arrives(self, request: Request, lost: Callable[[float], None]) -> None:
        if self._server.door is None:
            lost(self._line.delay())
        else:
            self._server.door.request(request, lost)


def _request_info() -> aiohttp.RequestInfo:
    url = URL(PREFIX)
    return aiohttp.RequestInfo(url, "GET", CIMultiDictProxy(CIMultiDict()), url)
