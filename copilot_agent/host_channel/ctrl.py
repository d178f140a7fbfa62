"""The guest's end of `ctrl`: typed messages over lines."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable

from pydantic import ValidationError

from copilot_agent.host_channel.hello import hello_line
from copilot_agent.host_channel.link import Link
from copilot_agent.host_channel.ports import Port
from copilot_agent.protocol.channel import LineSplitter
from copilot_agent.protocol.guest import (
    HOST_MESSAGE,
    MAX_LINE_BYTES,
    GuestMessage,
    HostMessage,
)

_MAX_UNREAD = 1000

log = logging.getLogger(__name__)


class GuestChannel:
    """Talks to the launcher over the port on which hello was said.

    When the launcher comes back after an absence, hello is said again with the next epoch and
    `on_renewed` is told, so that the agent can reset the `net` channel and say ready again.
    """

    def __init__(
        self,
        port: Port,
        *,
        agent_version: str,
        epoch: int,
        on_renewed: Callable[[int], None] | None = None,
    ) -> None:
        self.epoch = epoch
        self._agent_version = agent_version
        self._on_renewed = on_renewed
        self._port = port
        self._lines = LineSplitter(MAX_LINE_BYTES)
        self._unread: asyncio.Queue[HostMessage | None] = asyncio.Queue()
        self._room = asyncio.Event()
        self._absent_before = False
        self.ignored = 0

    async def start(self) -> None:
        """Starts to listen; call it first."""
        self._link = Link(
            self._port,
            on_data=self._received,
            on_presence=self._presence,
            on_room=self._room.set,
        )
        self._room.set()
        self._link.start()

    async def send(self, message: GuestMessage) -> None:
        """Waits while the launcher does not read; the message is lost while there is none."""
        if self._link.full:
            self._room.clear()
            await self._room.wait()
        self._link.write(message.model_dump_json(exclude_none=True).encode() + b"\n")

    async def messages(self) -> AsyncIterator[HostMessage]:
        """What the launcher says, until `close`; what cannot be read is logged and left out."""
        while (message := await self._unread.get()) is not None:
            self._link.set_reading(self._unread.qsize() < _MAX_UNREAD)
            yield message

    async def renew(self, epoch: int) -> None:
        """Says hello again after a pause, a restore or a restart: everything before is void."""
        self.epoch = epoch
        self._link.write(hello_line(self._agent_version, epoch, restarted=False))

    async def close(self) -> None:
        self._room.set()
        self._link.close()
        self._unread.put_nowait(None)

    def _received(self, data: bytes) -> None:
        oversized = self._lines.oversized
        for line in self._lines.feed(data):
            self._take(line)
        if self._lines.oversized > oversized:
            log.warning("left out a line of the launcher longer than %d bytes", MAX_LINE_BYTES)
        if self._unread.qsize() >= _MAX_UNREAD:
            self._link.set_reading(False)

    def _take(self, line: bytes) -> None:
        try:
            self._unread.put_nowait(HOST_MESSAGE.validate_json(line))
        except ValidationError as error:
            self.ignored += 1
            unknown = any(part["type"] == "union_tag_invalid" for part in error.errors())
            level = logging.DEBUG if unknown else logging.WARNING
            log.log(level, "left out a message of the launcher: %s", _in_short(error))

    def _presence(self, present: bool) -> None:
        if not present:
            self._absent_before = True
            self._lines = LineSplitter(MAX_LINE_BYTES)
            self._room.set()
        elif self._absent_before:
            self.epoch += 1
            self._link.write(hello_line(self._agent_version, self.epoch, restarted=False))
            if self._on_renewed is not None:
                self._on_renewed(self.epoch)


def _in_short(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_input=False)[0]
    return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
