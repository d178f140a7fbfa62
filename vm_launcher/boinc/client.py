"""The BOINC client as its task sees it: orders, heartbeats and trickles come, the status goes."""

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from vm_launcher.boinc.messages import (
    NEW_TRICKLE_UP,
    AppStatus,
    Order,
    format_page,
    format_status,
    has_trickle_down,
    is_heartbeat,
    parse_heartbeat,
    parse_orders,
)
from vm_launcher.boinc.shared_memory import Channel, SharedMemory, open_shared_memory
from vm_launcher.boinc.slot import Slot
from vm_launcher.boinc.trickles import TricklesDown, TricklesUp
from vm_launcher.boinc.watch import ClientWatch


@dataclass(frozen=True)
class Ordered:
    order: Order


@dataclass(frozen=True)
class NetworkSwitched:
    suspended: bool


@dataclass(frozen=True)
class MemoryLimit:
    """What the task's processes may have together; the client ends a task that takes more."""

    bytes: float


@dataclass(frozen=True)
class TrickleDown:
    text: str


@dataclass(frozen=True)
class ClientGone:
    reason: str


ClientEvent = Ordered | NetworkSwitched | MemoryLimit | TrickleDown | ClientGone


class Client:
    """Nothing here waits. `poll` is to be called each 0.1 s, `report` each second."""

    def __init__(
        self,
        slot: Path,
        memory: SharedMemory,
        client_pid: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._memory = memory
        self._clock = clock
        self._watch = ClientWatch(client_pid, clock())
        self._up = TricklesUp(slot)
        self._down = TricklesDown(slot)
        self._page = ""
        self._network_suspended = False
        self._memory_limit: float | None = None
        self._gone = False

    @classmethod
    def attach(cls, slot: Slot, clock: Callable[[], float] = time.monotonic) -> "Client":
        """Raises `InitDataError` and `SharedMemoryError`. The slot must be locked by us."""
        data = slot.init_data()
        memory = open_shared_memory(slot.directory, data.shm_key, data.comm_obj_name)
        return cls(slot.directory, memory, data.client_pid, clock)

    def poll(self) -> list[ClientEvent]:
        now = self._clock()
        events = [*self._heartbeat(now), *self._trickles_down(), *self._orders()]
        self._send_page()
        self._send_trickle(now)
        return [*events, *self._end(now)]

    def report(self, status: AppStatus) -> bool:
        """False if the client has not read the last one; then this one is not sent."""
        return self._memory.send(Channel.APP_STATUS, format_status(status))

    def reported(self) -> bool:
        """Whether the client has read the last status."""
        return not self._memory.unread(Channel.APP_STATUS)

    def trickle_up(self, variety: str, body: str, mark: str | None = None) -> None:
        """Queue a message to the project; durable when it returns, and sent once.

        A `mark` is kept with it, all or nothing: with `trickle_mark` the caller knows after a
        crash what it had queued. Raises `TrickleError`.
        """
        self._up.add(variety, body, mark)

    def trickle_mark(self) -> str:
        """Of the last trickle that had one, of this episode or an earlier one; else empty."""
        return self._up.mark

    def trickles_pending(self) -> int:
        """How many the client has not taken yet."""
        return len(self._up)

    def offer_page(self, url: str) -> None:
        """The manager's "show graphics" button opens it; `ValueError` for what it cannot open."""
        self._page = format_page(url)

    def close(self) -> None:
        self._memory.close()

    def _heartbeat(self, now: float) -> list[ClientEvent]:
        text = self._memory.receive(Channel.HEARTBEAT)
        if text is None:
            return []
        if is_heartbeat(text):
            self._watch.heard(now)
        beat = parse_heartbeat(text)
        events: list[ClientEvent] = []
        if beat.network_suspended != self._network_suspended:
            self._network_suspended = beat.network_suspended
            events.append(NetworkSwitched(beat.network_suspended))
        limit = beat.memory_limit_bytes
        if limit is not None and limit != self._memory_limit:
            self._memory_limit = limit
            events.append(MemoryLimit(limit))
        return events

    def _orders(self) -> list[ClientEvent]:
        text = self._memory.receive(Channel.PROCESS_CONTROL_REQUEST)
        return [] if text is None else [Ordered(order) for order in parse_orders(text)]

    def _trickles_down(self) -> list[ClientEvent]:
        text = self._memory.receive(Channel.TRICKLE_DOWN)
        if text is not None and has_trickle_down(text):
            self._down.announced()
        return [TrickleDown(told) for told in self._down.take()]

    def _send_page(self) -> None:
        if self._page and self._memory.send(Channel.GRAPHICS_REPLY, self._page):
            self._page = ""

    def _send_trickle(self, now: float) -> None:
        with contextlib.suppress(OSError):  # a full disk, say; the next time then
            if self._up.advance(now) and self._memory.send(Channel.TRICKLE_UP, NEW_TRICKLE_UP):
                self._up.flagged(now)

    def _end(self, now: float) -> list[ClientEvent]:
        """Told once."""
        reason = None if self._gone else self._watch.gone(now)
        if reason is None:
            return []
        self._gone = True
        return [ClientGone(reason)]
