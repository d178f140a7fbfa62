"""The XMPP server of Co-Pilot 1 as `deploy` configures it: who gets in, and who hears what."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from copilot_agent.protocol.copilot1.envelope import Envelope
from copilot_agent.xmpp.account import Account
from copilot_agent.xmpp.client import ClientStream
from tests.harness.copilot1_server import DOMAIN, Copilot1Server, copilot1_server
from tests.integration.xmpp.people import stranger

SECONDS = 20.0


class Member:
    """Somebody with an account; what it was told."""

    def __init__(self, stream: ClientStream, room: str) -> None:
        self.stream = stream
        self.told: asyncio.Queue[Envelope] = asyncio.Queue()
        self.account = Account(stream, self.told.put, room=room)

    async def next(self) -> Envelope:
        return await asyncio.wait_for(self.told.get(), SECONDS)


@asynccontextmanager
async def member(
    server: Copilot1Server, name: str, resource: str = "", room: str = ""
) -> AsyncIterator[Member]:
    joined = Member(ClientStream(await server.login(name, resource)), room)
    running = asyncio.create_task(joined.account.run())
    try:
        await asyncio.wait_for(joined.account.wait_online(), SECONDS)
        yield joined
    finally:
        running.cancel()
        await asyncio.wait([running])


async def test_a_word_to_the_account_reaches_every_instance(server: Copilot1Server) -> None:
    async with AsyncExitStack() as stack:
        alpha, beta = [
            await stack.enter_async_context(member(server, "jm", name))
            for name in ("alpha", "beta")
        ]
        agent = await stack.enter_async_context(member(server, "agent"))
        want = Envelope(recipient="jm@copilot.test", id="1", info={"command": "want_getJob"})
        await agent.account.send(want)
        for instance in (alpha, beta):
            heard = await instance.next()
            assert (heard.sender, heard.info) == (agent.stream.jid, want.info)


async def test_a_word_in_the_room_reaches_everybody_there(server: Copilot1Server) -> None:
    async with AsyncExitStack() as stack:
        one, two = [
            await stack.enter_async_context(member(server, name, room=server.room(name)))
            for name in ("one", "two")
        ]
        ping = Envelope(
            recipient=server.room("").rstrip("/"),
            id="1",
            noack=True,
            type="groupchat",
            info={"command": "Heartbeat:ping"},
        )
        await two.next()  # the room's subject: it is in
        await one.account.send(ping)
        heard = await two.next()
        assert (heard.sender, heard.info) == (server.room("one"), ping.info)


async def test_agents_do_not_reach_each_other() -> None:
    """A volunteer's machine must not reboot those of others."""
    async with copilot1_server(services=["jm"]) as server, AsyncExitStack() as stack:
        names = ("jm", "agent-1", "agent-2")
        manager, one, two = [
            await stack.enter_async_context(member(server, name, "r", server.room(name)))
            for name in names
        ]
        for person in (manager, one, two):
            await person.next()  # the room's subject: it is in
        sleep = Envelope(recipient=two.stream.jid, id="1", info={"command": "sleep"})
        await one.account.send(sleep)
        bounced = await one.next()
        assert (bounced.type, bounced.id) == ("error", "1")
        await manager.account.send(sleep)
        assert (await two.next()).sender == manager.stream.jid, "and nothing came before"
        await two.account.send(Envelope(recipient="jm@copilot.test", ack="1"))
        assert (await manager.next()).ack == "1"


async def test_nobody_gets_in_without_tls_or_makes_an_account(server: Copilot1Server) -> None:
    async with stranger(server) as person:
        features = await person.features(DOMAIN)
    assert "starttls" in features and "<required/>" in features
    assert "mechanism" not in features and "register" not in features


async def test_nothing_else_listens(server: Copilot1Server) -> None:
    assert {listener.port for listener in server.listeners} == {server.c2s_port}
