"""Drives a port from the event loop without spinning while the host is absent."""

import asyncio
import logging
from collections import deque
from collections.abc import Callable

from copilot_agent.host_channel.ports import Port

_PROBE_SECONDS = 0.1
_HIGH_WATER = 256 * 1024

log = logging.getLogger(__name__)


class Link:
    """Reads whenever something arrives, writes in order, and says when the host comes and goes.

    What is unsent when the host goes is dropped: the next one starts a new conversation.
    """

    def __init__(
        self,
        port: Port,
        *,
        on_data: Callable[[bytes], None],
        on_presence: Callable[[bool], None],
        on_room: Callable[[], None] = lambda: None,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._port = port
        self._on_data = on_data
        self._on_presence = on_presence
        self._on_room = on_room
        self._unsent: deque[memoryview] = deque()
        self._unsent_bytes = 0
        self._writing = False
        self._reading = True
        self._probe: asyncio.TimerHandle | None = None
        self.present = False

    @property
    def full(self) -> bool:
        """More is queued than it is useful to add to; `on_room` is called when that ends."""
        return self._unsent_bytes >= _HIGH_WATER

    def start(self) -> None:
        self._look()

    def write(self, data: bytes) -> None:
        """Queues `data`; dropped while the host is absent."""
        if not self.present or not data:
            return
        self._unsent.append(memoryview(data))
        self._unsent_bytes += len(data)
        if not self._writing:
            self._flush()

    def discard(self) -> None:
        """Forgets what is queued; what the port took already will arrive."""
        self._unsent.clear()
        self._unsent_bytes = 0
        self._stop_writing()

    def set_reading(self, wanted: bool) -> None:
        """Stops taking from the port, so that the host feels it, and starts again."""
        if wanted == self._reading:
            return
        self._reading = wanted
        if self.present and wanted:
            self._loop.add_reader(self._port.fileno(), self._readable)
        elif self.present:
            self._loop.remove_reader(self._port.fileno())

    def close(self) -> None:
        if self._probe is not None:
            self._probe.cancel()
            self._probe = None
        if self._port.fileno() >= 0:
            self._unwatch()
            self._port.close()
        self.present = False

    def _readable(self) -> None:
        try:
            data = self._port.read()
        except OSError as error:
            self._lose(error)
            return
        if data:
            self._on_data(data)
        elif data is not None:
            self._lose(None)

    def _flush(self) -> None:
        was_full = self.full
        try:
            self._write_out()
        except OSError as error:
            self._lose(error)
            return
        if self._unsent and not self._writing:
            self._writing = True
            self._loop.add_writer(self._port.fileno(), self._flush)
        elif not self._unsent:
            self._stop_writing()
        if was_full and not self.full:
            self._on_room()

    def _write_out(self) -> None:
        while self._unsent:
            first = self._unsent[0]
            taken = self._port.write(first)
            self._unsent_bytes -= taken
            if taken < len(first):
                self._unsent[0] = first[taken:]
                return
            self._unsent.popleft()

    def _stop_writing(self) -> None:
        if self._writing:
            self._writing = False
            self._loop.remove_writer(self._port.fileno())

    def _lose(self, error: OSError | None) -> None:
        if error is not None:
            log.warning("the port failed: %s", error)
        if not self.present:
            return
        self.present = False
        self._unwatch()
        self._on_presence(False)
        self._probe = self._loop.call_later(_PROBE_SECONDS, self._look)

    def _unwatch(self) -> None:
        if self._reading:
            self._loop.remove_reader(self._port.fileno())
        self.discard()

    def _look(self) -> None:
        if not self._port.present():
            self._probe = self._loop.call_later(_PROBE_SECONDS, self._look)
            return
        self._probe = None
        self.present = True
        if self._reading:
            self._loop.add_reader(self._port.fileno(), self._readable)
        self._on_presence(True)
