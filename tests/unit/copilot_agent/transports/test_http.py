"""Which carrier is used, and how connections are made without a network card."""

import asyncio
import socket

import pytest

from copilot_agent.core.events import TransportTrouble
from copilot_agent.protocol.frames import PilotFrame, Wants
from copilot_agent.transports.base import TransportError
from copilot_agent.transports.carriers import over_http
from copilot_agent.transports.connections import open_session, tls_context
from copilot_agent.transports.ladder import Ladder
from tests.contract.test_transports import answer
from tests.unit.copilot_agent.transports.scripted import ScriptedManager

ATTACH = PilotFrame(wants=Wants(cores=1, memory_mib=1, disk_mib=1))


async def attach(transport: Ladder, manager: ScriptedManager) -> None:
    await transport.connect("token")
    await transport.send(ATTACH)
    manager.say(answer(1))
    await anext(transport.frames())


async def test_the_socket_is_preferred() -> None:
    async with ScriptedManager().running() as manager, open_session() as session:
        transport = over_http(session, manager.url)
        await attach(transport, manager)
        assert transport.carrier == "websocket"
        await transport.close()


async def test_polls_are_used_where_sockets_do_not_pass() -> None:
    async with ScriptedManager().running() as manager, open_session() as session:
        manager.websockets = False
        transport = over_http(session, manager.url)
        await attach(transport, manager)
        assert transport.carrier == "poll"
        await transport.close()


async def test_a_waiting_poll_takes_no_good_bye_back() -> None:
    async with ScriptedManager().running() as manager, open_session() as session:
        manager.websockets = False
        transport = over_http(session, manager.url)
        await attach(transport, manager)
        leaving = ATTACH.model_copy(update={"session": 1, "sequence": 1, "leaving": True})
        await transport.send(leaving)
        manager.say(answer(1))
        await anext(transport.frames())
        async with asyncio.timeout(5):
            while (frame := await manager.received.get()) != leaving:
                pass
            frame = await manager.received.get()  # the poll that waits for more
        assert frame.leaving
        await transport.close()


async def test_polls_give_way_to_the_socket_later() -> None:
    clock = [1.0]
    async with ScriptedManager().running() as manager, open_session() as session:
        manager.websockets = False
        transport = over_http(session, manager.url, clock=lambda: clock[0])
        await attach(transport, manager)
        manager.websockets = True
        clock[0] = 700.0
        frames = transport.frames()
        manager.say(answer(1))
        with pytest.raises(TransportError, match="pass again"):
            await anext(frames)
        await attach(transport, manager)
        assert transport.carrier == "websocket"
        await transport.close()


async def test_a_server_that_is_away_is_unreachable() -> None:
    async with open_session() as session:
        transport = over_http(session, "http://127.0.0.1:9")
        with pytest.raises(TransportError) as caught:
            await transport.connect("token")
        assert caught.value.trouble is TransportTrouble.UNREACHABLE


class SocketDialer:
    """Leads every name to one port of this host, as the launcher's channel would."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.asked: list[tuple[str, int]] = []

    async def dial(self, host: str, port: int) -> socket.socket:
        self.asked.append((host, port))
        sock = socket.socket()
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", self.port))
        return sock


async def test_a_dialer_makes_the_connections_and_nothing_is_resolved() -> None:
    async with ScriptedManager().running() as manager:
        dialer = SocketDialer(int(manager.url.rpartition(":")[2]))
        async with open_session(dialer) as session:
            transport = over_http(session, "http://manager.invalid:8470")
            await attach(transport, manager)
            await transport.close()
    assert dialer.asked == [("manager.invalid", 8470)]


class RefusingDialer:
    async def dial(self, host: str, port: int) -> socket.socket:
        raise ConnectionRefusedError("not on the list")


async def test_a_refusing_dialer_is_told_like_any_other_trouble() -> None:
    async with open_session(RefusingDialer()) as session:
        with pytest.raises(TransportError, match="not on the list"):
            await over_http(session, "http://manager.invalid").connect("token")


def test_extra_certificates_must_be_pem() -> None:
    with pytest.raises(ValueError, match="PEM"):
        tls_context("rubbish")


async def test_proxies_of_the_environment_are_not_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    async with ScriptedManager().running() as manager, open_session() as session:
        transport = over_http(session, manager.url)
        await attach(transport, manager)
        await transport.close()
