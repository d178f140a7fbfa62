"""What the guest may reach: the list, the classes of addresses, the accounts."""

import asyncio
import ipaddress
import socket
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vm_launcher.egress import (
    AllowEntryError,
    AllowList,
    Egress,
    EgressRefusedError,
    Entry,
    inner_address,
    normal_host,
)


class Clock:
    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """What names resolve to."""
    names: dict[str, list[str]] = {}

    async def resolve(self: object, host: str, port: int, **_: Any) -> list[tuple[Any, ...]]:
        return [(0, 0, 0, "", (address, port)) for address in names[host]]

    monkeypatch.setattr(asyncio.BaseEventLoop, "getaddrinfo", resolve)
    return names


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("manager.example.org:443", "manager.example.org", 443),
        ("Manager.Example.ORG.:443", "manager.example.org", 443),
        ("https://manager.example.org/base", "manager.example.org", 443),
        ("http://127.0.0.1:8470", "127.0.0.1", 8470),
        ("[2001:DB8:0::1]:80", "2001:db8::1", 80),
        ("bücher.example:80", "xn--bcher-kva.example", 80),
        ("localhost:80", "localhost", 80),
    ],
)
def test_entries_are_written_in_many_ways(text: str, host: str, port: int) -> None:
    entry = Entry.parse(text)
    assert (entry.host, entry.port) == (host, port)


@pytest.mark.parametrize(
    "text",
    ["", "host", "host:", "host:0", "host:65536", "host:x", ":80", "*:80", "*.example.org:80",
     "a b:80", "127.1:80", "0x7f000001:80", "2130706433:80", "fe80::1%eth0:80", "ftp://host/"],
)  # fmt: skip
def test_malformed_entries_are_refused_with_a_remedy(text: str) -> None:
    with pytest.raises(AllowEntryError) as refused:
        Entry.parse(text)
    assert "name:port" in refused.value.remedy


def test_only_the_exact_pair_is_allowed() -> None:
    allow_list = AllowList([Entry.parse("manager.example.org:443")])
    assert allow_list.allow("manager.example.org", 443).allowed
    assert allow_list.allow("MANAGER.example.org.", 443).allowed
    for host, port in [
        ("manager.example.org", 80),
        ("example.org", 443),
        ("x.manager.example.org", 443),
        ("manager.example.org.evil.org", 443),
    ]:
        assert allow_list.allow(host, port).reason == "not_listed"


def test_the_managers_loopback_port_is_allowed_and_no_other() -> None:
    allow_list = AllowList([Entry.parse("http://127.0.0.1:8470")])
    assert allow_list.allow("127.0.0.1", 8470).allowed
    for port in [1, 22, 80, 631, 8469, 8471, 65535]:
        assert allow_list.allow("127.0.0.1", port).reason == "loopback_address"
    for same_place in ["::ffff:127.0.0.1", "127.1", "0x7f000001", "2130706433", "localhost"]:
        assert not allow_list.allow(same_place, 8470).allowed


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("127.0.0.1", "loopback_address"), ("127.255.255.254", "loopback_address"),
        ("::1", "loopback_address"), ("0.0.0.0", "loopback_address"),  # noqa: S104
        ("::", "loopback_address"),
        ("10.0.2.2", "private_address"), ("172.16.0.1", "private_address"),
        ("192.168.0.1", "private_address"), ("100.64.0.1", "private_address"),
        ("fd00::1", "private_address"), ("198.18.0.1", "private_address"),
        ("fec0::1", "private_address"), ("::7f00:1", "private_address"),
        ("::ffff:0:a00:1", "private_address"), ("64:ff9b:1::a00:1", "private_address"),
        ("255.255.255.255", "private_address"), ("240.0.0.1", "private_address"),
        ("169.254.169.254", "link_local_address"), ("fe80::1", "link_local_address"),
        ("224.0.0.1", "multicast_address"), ("ff02::1", "multicast_address"),
        ("::ffff:10.0.0.1", "mapped_address"), ("::ffff:8.8.8.8", "mapped_address"),
        ("2002:7f00:1::", "mapped_address"), ("2001:0:4136:e378::", "mapped_address"),
        ("64:ff9b::7f00:1", "loopback_address"), ("64:ff9b::a00:1", "private_address"),
        ("8.8.8.8", ""), ("64:ff9b::808:808", ""), ("2606:4700::1111", ""),
    ],
)  # fmt: skip
def test_classes_of_addresses(address: str, reason: str) -> None:
    assert inner_address(ipaddress.ip_address(address)) == reason


@given(st.ip_addresses())
def test_a_public_address_is_never_inside(address: Any) -> None:
    if not inner_address(address) and address.version == 4:
        assert address.is_global
        assert not (address.is_private or address.is_loopback or address.is_multicast)


@given(st.text(max_size=80))
def test_a_host_is_normal_for_good_or_refused(text: str) -> None:
    try:
        host = normal_host(text)
    except ValueError:
        return
    assert normal_host(host) == host
    assert host.isascii()
    assert not set(host) & set(" \r\n\t/@?#%\0")


async def test_a_name_that_leads_inside_is_refused(answers: dict[str, list[str]]) -> None:
    answers["evil.example"] = ["127.0.0.1", "192.168.1.1"]
    egress = Egress(AllowList([Entry.parse("evil.example:80")]))
    with pytest.raises(EgressRefusedError, match="loopback_address"):
        await egress.connect("evil.example", 80)
    assert egress.snapshot()["last_refused"][0]["target"] == "evil.example:80"


async def test_a_name_marked_local_may_lead_inside(answers: dict[str, list[str]]) -> None:
    listening = socket.create_server(("127.0.0.1", 0))
    port = listening.getsockname()[1]
    answers["nas.home"] = ["127.0.0.1"]
    egress = Egress(AllowList([Entry.parse(f"nas.home:{port}", local=True)]))
    with await egress.connect("nas.home", port) as connected, listening:
        assert connected.getpeername() == ("127.0.0.1", port)


async def test_of_a_names_addresses_only_the_public_ones_are_tried(
    answers: dict[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[str] = []

    async def connect(address: Any, port: int) -> socket.socket:
        tried.append(str(address))
        raise ConnectionRefusedError

    monkeypatch.setattr("vm_launcher.egress._connect", connect)
    answers["mixed.example"] = ["10.0.0.1", "93.184.216.34", "fe80::1%2"]
    egress = Egress(AllowList([Entry.parse("mixed.example:80")]))
    with pytest.raises(ConnectionRefusedError):
        await egress.connect("mixed.example", 80)
    assert tried == ["93.184.216.34"]


async def test_refusals_are_counted_without_end_but_remembered_in_part() -> None:
    egress = Egress(AllowList([]))
    for port in range(1, 201):
        with pytest.raises(EgressRefusedError):
            await egress.connect("10.0.2.2\n", port)
    snapshot = egress.snapshot()
    assert snapshot["refused"] == 200
    assert len(snapshot["last_refused"]) == 50
    assert snapshot["last_refused"][-1]["target"] == "10.0.2.2?:200"


def test_the_rate_fills_up_with_time() -> None:
    clock = Clock()
    egress = Egress(AllowList([]), bytes_per_second=100_000, clock=clock)
    assert egress.room() == 100_000
    egress.count_in(150_000)
    assert egress.room() == 0
    clock.now += 1
    assert egress.room() == 50_000
    clock.now += 100
    assert egress.room() == 100_000


async def test_the_quota_cuts_once_and_ends_with_the_day() -> None:
    clock = Clock()
    cuts: list[int] = []
    egress = Egress(AllowList([]), bytes_per_day=1000, clock=clock)
    egress.on_cut(lambda: cuts.append(1))
    egress.count_in(600)
    egress.count_out(600)
    egress.count_out(600)
    assert cuts == [1]
    with pytest.raises(EgressRefusedError, match="quota"):
        await egress.connect("example.org", 80)
    clock.now += 86400
    with pytest.raises(EgressRefusedError, match="not_listed"):
        await egress.connect("example.org", 80)


async def test_a_days_account_goes_on_after_a_restart() -> None:
    clock = Clock()
    before = Egress(AllowList([]), bytes_per_day=1000, clock=clock)
    before.count_in(1000)
    snapshot = before.snapshot()
    after = Egress(AllowList([]), bytes_per_day=1000, clock=clock)
    for odd in ({}, {"day": "x", "bytes_today": []}, {"day": snapshot["day"], "bytes_today": "9"}):
        after.resume_from(odd)
    with pytest.raises(EgressRefusedError, match="not_listed"):
        await after.connect("example.org", 80)
    after.resume_from(snapshot)
    with pytest.raises(EgressRefusedError, match="quota"):
        await after.connect("example.org", 80)
    clock.now += 86400
    later = Egress(AllowList([]), bytes_per_day=1000, clock=clock)
    later.resume_from(snapshot)
    with pytest.raises(EgressRefusedError, match="not_listed"):
        await later.connect("example.org", 80)
