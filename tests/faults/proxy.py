"""A link between pilot and manager that stops the world at a point of the conversation."""

import asyncio
import socket
import struct
import time
from collections.abc import Callable
from contextlib import suppress

from copilot_agent.protocol.frames import PilotFrame
from tests.faults.wire import Conversation, Piece, Seen, Stream, Way

READ = 1 << 16
BACKLOG = 100


class Trap:
    """Is reached when a piece that `holds` has come and one that is `needed` has gone on."""

    def __init__(
        self, holds: Callable[[Seen], bool], needed: Callable[[Seen], bool] | None = None
    ) -> None:
        self.holds = holds
        self.reached = asyncio.Event()
        self._needed = needed
        self._held = False

    def held(self) -> bool:
        """One that `holds` has come; whether the trap is reached now."""
        self._held = True
        return self._needed is None

    def passed(self, seen: Seen) -> bool:
        """It has gone on; whether the trap is reached now."""
        if self._needed is None or not self._needed(seen):
            return False
        self._needed = None
        return self._held


class Gate:
    """One direction of the link."""

    def __init__(self) -> None:
        self._open = asyncio.Event()
        self._open.set()

    def close(self) -> None:
        self._open.clear()

    def open(self) -> None:
        self._open.set()

    async def passing(self) -> None:
        await self._open.wait()


class Link:
    """Listens on `port` of loopback and speaks for whoever connects to the manager's port.

    When the trap is reached nothing passes any more, in either direction, until `go_on` or `cut`.
    """

    def __init__(
        self, manager_port: int, exempt: Callable[[int], bool] = lambda _port: False
    ) -> None:
        """`exempt`: whether this port belongs to somebody to whom the link does nothing."""
        self._manager_port = manager_port
        self._exempt = exempt
        self._gates = {way: Gate() for way in Way}
        self._trap: Trap | None = None
        self.said: PilotFrame | None = None
        """By the pilot, last, since the link was last opened."""
        self.named: dict[tuple[str, int], float] = {}
        """Unix time of the last frame to the manager in which a pilot held this attempt."""
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    @property
    def port(self) -> int:
        if self._server is None:
            raise RuntimeError("the link is not open")
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, backlog=BACKLOG)

    async def stop(self) -> None:
        self.go_on()
        if self._server is not None:
            self._server.close()
        self.cut()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # ----- what a test does to it

    def lead_to(self, manager_port: int) -> None:
        """Connections from now on, as when a proxy's health check has failed."""
        self._manager_port = manager_port

    def set_trap(self, trap: Trap) -> None:
        self._trap = trap

    async def reached(self) -> None:
        if self._trap is None:
            raise RuntimeError("there is no trap")
        await self._trap.reached.wait()

    def freeze(self, *ways: Way) -> None:
        """Bytes wait, connections stay; both ways if none is named."""
        for way in ways or Way:
            self._gates[way].close()

    def go_on(self) -> None:
        """What was held goes on, and everything after it."""
        self._trap = self.said = None
        for gate in self._gates.values():
            gate.open()

    def cut(self) -> None:
        """What was held is lost, every connection is reset; new ones pass."""
        self._trap = self.said = None
        for writer in tuple(self._writers):
            reset(writer)
        for gate in self._gates.values():
            gate.open()

    # ----- how

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        try:
            up, down = await asyncio.open_connection("127.0.0.1", self._manager_port)
        except OSError:
            reset(writer)
            return
        both = Conversation()
        try:
            if self._exempt(writer.get_extra_info("peername")[1]):
                await asyncio.gather(
                    self._copy(both.up, reader, down), self._copy(both.down, up, writer)
                )
                return
            self._writers |= {writer, down}
            await asyncio.gather(
                self._pump(both.up, Way.UP, reader, down),
                self._pump(both.down, Way.DOWN, up, writer),
            )
        finally:
            for each in (writer, down):
                self._writers.discard(each)
                each.transport.abort()

    async def _pump(
        self, stream: Stream, way: Way, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(READ):
                for piece in stream.feed(data):
                    await self._pass(piece, way, writer)
        await self._gates[way].passing()
        with suppress(ConnectionError, RuntimeError):
            writer.write(stream.rest())
            await writer.drain()
            writer.close()

    async def _pass(self, piece: Piece, way: Way, writer: asyncio.StreamWriter) -> None:
        trap = self._trap
        if trap is not None and piece.seen is not None and trap.holds(piece.seen):
            if trap.held():
                self._spring(trap)
            await trap.reached.wait()
        await self._gates[way].passing()
        writer.write(piece.data)
        await writer.drain()
        self.said = self._note(piece) or self.said
        if trap is not None and piece.seen is not None and trap.passed(piece.seen):
            self._spring(trap)

    async def _copy(
        self, stream: Stream, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """For those to whom nothing is done."""
        with suppress(ConnectionError, RuntimeError):
            while data := await reader.read(READ):
                for piece in stream.feed(data):
                    writer.write(piece.data)
                    self._note(piece)
                await writer.drain()
            writer.close()

    def _note(self, piece: Piece) -> PilotFrame | None:
        """Who held what when; gives the frame if it is a pilot's."""
        frame = piece.seen.frame if piece.seen is not None else None
        if not isinstance(frame, PilotFrame):
            return None
        now = time.time()
        self.named.update({(one.job, one.attempt): now for one in frame.holding})
        return frame

    def _spring(self, trap: Trap) -> None:
        if trap is self._trap:
            self.freeze()
        trap.reached.set()


def reset(writer: asyncio.StreamWriter) -> None:
    """Ends a connection at once, with RST instead of FIN."""
    sock = writer.get_extra_info("socket")
    with suppress(OSError):  # it is closed already
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
