"""What the guest may reach, and how much of it: the allow-list, and the connections it permits.

The launcher resolves names itself and connects to the very address it has checked, so a name that
changes its answer gains nothing.
"""

import asyncio
import ipaddress
import re
import socket
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import urlsplit

from copilot_agent.protocol.errors import CopilotError, ErrorCode

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_NAME = re.compile(r"(?=.{1,253}$)([a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?\.)*[a-z0-9-]{0,62}[a-z]")
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")
"""All that IANA has assigned; elsewhere lie site-local and IPv4-embedding addresses."""
_RESOLVE_SECONDS = 15.0
_CONNECT_SECONDS = 20.0
_MAX_ADDRESSES = 4
_REMEMBERED_REFUSALS = 50
_DAY_SECONDS = 86400


class AllowEntryError(CopilotError):
    """An entry of the allow-list is malformed."""

    code = ErrorCode.INVALID_REQUEST


class EgressRefusedError(Exception):
    """The guest may not have this connection; `reason` is one word, see the module's refusals."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True)
class Entry:
    """One host:port that the guest may reach.

    `local` permits a name that resolves to an address inside the volunteer's own network.
    """

    host: str
    port: int
    local: bool = False

    @classmethod
    def parse(cls, text: str, *, local: bool = False) -> Self:
        """Reads `host:port`, `[v6]:port` or an http(s) URL. Raises AllowEntryError."""
        try:
            parts = urlsplit(text if "://" in text else f"//{text}")
            port = parts.port or {"http": 80, "https": 443}[parts.scheme]
            host = normal_host(parts.hostname or "")
        except (ValueError, KeyError):
            host, port = "", 0
        if not host or not port:
            raise AllowEntryError(
                f"{text!r} is no host:port",
                remedy="write name:port, address:port or [IPv6 address]:port, or a whole http URL",
            )
        return cls(host, port, local)

    @property
    def literal(self) -> bool:
        """The host is an address, not a name."""
        return _address(self.host) is not None


@dataclass(frozen=True)
class Decision:
    """`reason` is empty when allowed."""

    reason: str = ""
    entry: Entry | None = None

    @property
    def allowed(self) -> bool:
        return not self.reason


class AllowList:
    """Exact host:port pairs; nothing else is ever reached."""

    def __init__(self, entries: Iterable[Entry]) -> None:
        self._entries: dict[tuple[str, int], Entry] = {}
        for entry in entries:
            known = self._entries.get((entry.host, entry.port))
            if known is None or entry.local:
                self._entries[entry.host, entry.port] = entry

    def __iter__(self) -> Iterable[Entry]:
        return iter(self._entries.values())

    def allow(self, host: str, port: int) -> Decision:
        """Whether a guest may ask for this; its addresses are checked afterwards."""
        try:
            name = normal_host(host)
        except ValueError:
            return Decision("malformed")
        entry = self._entries.get((name, port))
        if entry is not None:
            return Decision(entry=entry)
        address = _address(name)
        return Decision((address and inner_address(address)) or "not_listed")

    def allow_address(self, entry: Entry, address: Address) -> Decision:
        """Whether `entry` may be reached at an address that its name resolved to."""
        if entry.local or entry.literal:
            return Decision(entry=entry)
        return Decision(inner_address(address), entry)


def normal_host(host: str) -> str:
    """Lower case, IDNA, no final dot, addresses in their shortest form.

    Raises ValueError for what is neither a name nor an address; `127.1` and `0x7f000001` are
    neither, though a C library would take them for addresses.
    """
    address = _address(host.strip("[]"))
    if address is not None:
        return str(address)
    name = host.removesuffix(".").encode("idna").decode("ascii").lower()
    if not _NAME.fullmatch(name):
        raise ValueError("neither a host's name nor an address")
    return name


def inner_address(address: Address) -> str:
    """Why a guest must not reach this address: the reason's word, or empty for a public one."""
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped or address.sixtofour or address.teredo:
            return "mapped_address"
        if address in _NAT64:
            return inner_address(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
    if address.is_loopback or address.is_unspecified:
        return "loopback_address"
    if address.is_link_local:
        return "link_local_address"
    if address.is_multicast:
        return "multicast_address"
    outside = address.is_global and (address.version == 4 or address in _GLOBAL_UNICAST)
    return "" if outside else "private_address"


def _address(text: str) -> Address | None:
    try:
        return ipaddress.ip_address(text) if "%" not in text else None
    except ValueError:
        return None


class Egress:
    """Makes the permitted connections and keeps the accounts of one VM.

    `bytes_per_second` bounds both directions together, `bytes_per_day` a UTC day's sum of them.
    """

    def __init__(
        self,
        allow_list: AllowList,
        *,
        bytes_per_second: int | None = None,
        bytes_per_day: int | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._allow_list = allow_list
        self._rate = bytes_per_second
        self._quota = bytes_per_day
        self._clock = clock
        self._network_enabled = True
        self._cut: list[Callable[[], None]] = []
        self._tokens = float(bytes_per_second or 0)
        self._filled_at = clock()
        self._day = self._today()
        self._bytes_today = 0
        self._reasons: Counter[str] = Counter()
        self._last_refused: deque[dict[str, Any]] = deque(maxlen=_REMEMBERED_REFUSALS)
        self.bytes_in = 0
        self.bytes_out = 0
        self.connections = 0

    # The switch and the bounds.

    @property
    def network_enabled(self) -> bool:
        return self._network_enabled

    @network_enabled.setter
    def network_enabled(self, enabled: bool) -> None:
        """Off refuses every new connection and closes those that exist."""
        self._network_enabled = enabled
        if not enabled:
            self._cut_all()

    def bound(self, bytes_per_second: int | None, bytes_per_day: int | None) -> None:
        """Other bounds from now on; None is no bound."""
        self._rate, self._quota = bytes_per_second, bytes_per_day
        if self._over_quota():
            self._cut_all()

    def on_cut(self, cut: Callable[[], None]) -> None:
        """`cut` is called when every connection must end."""
        self._cut.append(cut)

    def room(self) -> int:
        """How many bytes may move now."""
        if self._rate is None:
            return 1 << 30
        now = self._clock()
        added = max(0.0, now - self._filled_at) * self._rate
        self._tokens = min(self._tokens + added, float(max(self._rate, 65536)))
        self._filled_at = now
        return max(0, int(self._tokens))

    def count_in(self, size: int) -> None:
        """`size` bytes went into the guest."""
        self.bytes_in += size
        self._spend(size)

    def count_out(self, size: int) -> None:
        """`size` bytes came out of the guest."""
        self.bytes_out += size
        self._spend(size)

    def _spend(self, size: int) -> None:
        if self._rate is not None:
            self._tokens -= size
        was_over = self._over_quota()
        self._bytes_today += size
        if not was_over and self._over_quota():
            self._cut_all()

    def _over_quota(self) -> bool:
        if self._day != self._today():
            self._day = self._today()
            self._bytes_today = 0
        return self._quota is not None and self._bytes_today >= self._quota

    def _today(self) -> int:
        return int(self._clock() // _DAY_SECONDS)

    def _cut_all(self) -> None:
        for cut in self._cut:
            cut()

    # Connections.

    async def connect(self, host: str, port: int) -> socket.socket:
        """A connected non-blocking socket.

        Raises EgressRefusedError, TimeoutError, and OSError where it is allowed but fails.
        """
        try:
            entry = self._permit(host, port)
            addresses = await self._resolve(entry)
        except EgressRefusedError as error:
            self.count_refused(host, port, error.reason)
            raise
        connected = await _connect_first(addresses[:_MAX_ADDRESSES], port)
        if not self._network_enabled:  # switched off meanwhile
            connected.close()
            self.count_refused(host, port, "network_off")
            raise EgressRefusedError("network_off")
        self.connections += 1
        return connected

    def count_refused(self, host: str, port: int, reason: str) -> None:
        self._reasons[reason] += 1
        self._last_refused.append(
            {"target": f"{_printable(host)}:{port}", "reason": reason, "time": self._clock()}
        )

    def _permit(self, host: str, port: int) -> Entry:
        if not self._network_enabled:
            raise EgressRefusedError("network_off")
        if self._over_quota():
            raise EgressRefusedError("quota")
        decision = self._allow_list.allow(host, port)
        if decision.entry is None:
            raise EgressRefusedError(decision.reason)
        return decision.entry

    async def _resolve(self, entry: Entry) -> list[Address]:
        literal = _address(entry.host)
        if literal is not None:
            return [literal]
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(_RESOLVE_SECONDS):
            found = await loop.getaddrinfo(entry.host, entry.port, type=socket.SOCK_STREAM)
        addresses = [ipaddress.ip_address(str(where[0]).partition("%")[0]) for *_, where in found]
        decisions = [(one, self._allow_list.allow_address(entry, one)) for one in addresses]
        allowed = [one for one, decision in decisions if decision.allowed]
        if not allowed:
            raise EgressRefusedError(decisions[0][1].reason)
        return allowed

    def snapshot(self) -> dict[str, Any]:
        """The accounts, for the status file."""
        return {
            "network_enabled": self._network_enabled,
            "bytes_in": self.bytes_in,
            "bytes_out": self.bytes_out,
            "bytes_today": self._bytes_today,
            "day": self._day,
            "connections": self.connections,
            "refused": self._reasons.total(),
            "refused_by_reason": dict(self._reasons),
            "last_refused": list(self._last_refused),
        }

    def resume_from(self, snapshot: Mapping[str, Any]) -> None:
        """Goes on with the day's account of an earlier launcher, as its status file has it."""
        day, used = snapshot.get("day"), snapshot.get("bytes_today")
        if day == self._today() and isinstance(used, int) and used > 0:
            self._bytes_today = used


async def _connect_first(addresses: list[Address], port: int) -> socket.socket:
    failure: OSError = ConnectionRefusedError("no address")
    async with asyncio.timeout(_CONNECT_SECONDS):
        for address in addresses:
            try:
                return await _connect(address, port)
            except OSError as error:
                failure = error
    raise failure


async def _connect(address: Address, port: int) -> socket.socket:
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    connecting = socket.socket(family, socket.SOCK_STREAM)
    try:
        connecting.setblocking(False)
        connecting.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await asyncio.get_running_loop().sock_connect(connecting, (str(address), port))
    except BaseException:
        connecting.close()
        raise
    return connecting


def _printable(host: str) -> str:
    return "".join(sign if sign.isprintable() else "?" for sign in host[:100])
