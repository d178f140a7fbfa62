"""The launcher's end of `ctrl`. The guest is hostile: its lines are bounded, paced and counted."""

import asyncio
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from copilot_agent.protocol.channel import LineSplitter
from copilot_agent.protocol.guest import (
    GUEST_MESSAGE,
    MAX_LINE_BYTES,
    GuestMessage,
    HostMessage,
)
from vm_launcher.channels.pace import Pace

_READ_BYTES = 64 * 1024
_MAX_UNREAD_BY_GUEST = 1024 * 1024
_RETRY_SECONDS = 0.1
_BYTES_PER_SECOND = 256 * 1024
_BURST_BYTES = 4 * 1024 * 1024
_LINES_PER_SECOND = 100
_BURST_LINES = 1000
_LOG_EVERY = 1000

log = logging.getLogger(__name__)


class ChannelDownError(ConnectionError):
    """The message was not sent: no VM is connected, or its guest has stopped to read."""


class HostChannel:
    """Messages over the UNIX socket at which QEMU serves the port's character device.

    The connection is made again when it breaks, until `close`.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._closed = False
        self.malformed = 0
        self.oversized = 0
        self.received = 0

    @property
    def connected(self) -> bool:
        """QEMU's end is there; says nothing about the guest."""
        return self._writer is not None

    async def connect(self, timeout: float = 10.0) -> None:
        """Waits for QEMU's socket; raises TimeoutError when it does not come up."""
        async with asyncio.timeout(timeout):
            await self._connect()

    async def send(self, message: HostMessage) -> None:
        """Never waits for the guest. Raises ChannelDownError."""
        writer = self._writer
        if writer is None or writer.transport.is_closing():
            raise ChannelDownError("no VM is connected to the ctrl channel")
        if writer.transport.get_write_buffer_size() > _MAX_UNREAD_BY_GUEST:
            raise ChannelDownError("the guest does not read the ctrl channel")
        writer.write(message.model_dump_json(exclude_none=True).encode() + b"\n")

    async def messages(self) -> AsyncIterator[GuestMessage]:
        """What the guest says, until `close`, over breaks of the connection.

        Too fast a guest is not read for a while; what is malformed is dropped and counted.
        """
        while not self._closed:
            await self._connect()
            lines = LineSplitter(MAX_LINE_BYTES)
            already = self.oversized
            async for data in self._chunks():
                complete = lines.feed(data)
                self.oversized = already + lines.oversized
                for line in complete:
                    if (message := self._parse(line)) is not None:
                        yield message
            self._disconnect()

    async def close(self) -> None:
        self._closed = True
        self._disconnect()

    def snapshot(self) -> dict[str, Any]:
        return {
            "connected": self.connected,
            "received": self.received,
            "malformed": self.malformed,
            "oversized": self.oversized,
        }

    async def _connect(self) -> None:
        while self._writer is None and not self._closed:
            try:
                reader, writer = await asyncio.open_unix_connection(self._path)
            except (FileNotFoundError, ConnectionError):
                await asyncio.sleep(_RETRY_SECONDS)
                continue
            if self._closed:
                writer.close()
                return
            writer.write(b"\n")  # ends what an earlier connection left unfinished
            self._reader, self._writer = reader, writer

    def _disconnect(self) -> None:
        writer, self._writer, self._reader = self._writer, None, None
        if writer is not None:
            writer.transport.abort()

    async def _chunks(self) -> AsyncIterator[bytes]:
        now = asyncio.get_running_loop().time
        size_pace = Pace(_BYTES_PER_SECOND, _BURST_BYTES, now())
        line_pace = Pace(_LINES_PER_SECOND, _BURST_LINES, now())
        while (reader := self._reader) is not None:
            try:
                data = await reader.read(_READ_BYTES)
            except ConnectionError:
                return
            if not data:
                return
            yield data
            lines = data.count(b"\n")
            wait = max(size_pace.spend(len(data), now()), line_pace.spend(lines, now()))
            if wait:
                await asyncio.sleep(wait)

    def _parse(self, line: bytes) -> GuestMessage | None:
        try:
            message = GUEST_MESSAGE.validate_json(line)
        except ValidationError as error:
            self.malformed += 1
            if self.malformed % _LOG_EVERY == 1:
                log.warning(
                    "dropped %d malformed messages of the guest, the last: %s",
                    self.malformed,
                    _in_short(error),
                )
            return None
        self.received += 1
        return message


def _in_short(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_input=False)[0]
    return f"{'.'.join(map(str, first['loc']))[:100]}: {first['msg'][:200]}"
