"""Prosody and ejabberd as `deploy` configures them: who gets in, and whom they reach."""

import asyncio
import ssl
import time
from pathlib import Path

import jwt
import pytest
from slixmpp import JID
from slixmpp.exceptions import IqError

from copilot_agent.xmpp.component import ComponentLogin, ComponentStream
from job_manager_adapter.transports.xmpp.build import LIMITS
from tests.harness.certificates import Authority
from tests.harness.xmpp import DOMAIN, MANAGERS, XmppServer, running
from tests.integration.xmpp.people import (
    MANAGER,
    SECONDS,
    Manager,
    Pilot,
    pilot,
    pilot_id,
    stranger,
    token,
)

KIB = 1024


async def test_a_pilot_asks_its_manager(client: Pilot) -> None:
    assert await client.ask(f"{MANAGER}/pilots", size=1234) == "1234"
    assert client.boundjid.resource == "pilot"
    version = client.socket.version() if client.socket else None
    assert version in {"TLSv1.2", "TLSv1.3"}


async def test_a_manager_asks_a_pilot(client: Pilot, component: Manager) -> None:
    asked = component.make_iq_set(ito=client.boundjid, ifrom=component.boundjid)
    asked.append(client.frame(MANAGER).xml[0])
    await asked.send(timeout=SECONDS)
    assert client.received == [MANAGER]


def bad_tokens(server: XmppServer, name: str) -> dict[str, str]:
    """One with each thing wrong that may be wrong with a token."""
    claims = {"sub": name, "aud": "copilot-pilot", "exp": int(time.time()) + 60}
    return {
        "none": "x",
        "broken": "!!.a.b",
        "expired": token(server, name, age=3601),
        "another's": token(server, pilot_id()),
        "another key": jwt.encode(claims, bytes(32)),
        "unsigned": jwt.encode(claims, "", "none"),
        "another audience": jwt.encode(claims | {"aud": "copilot-user"}, server.key),
        "no end": jwt.encode({"sub": name, "aud": "copilot-pilot"}, server.key),
    }


async def test_only_the_pilots_own_token_lets_it_in(server: XmppServer) -> None:
    name = pilot_id()
    for fault, password in bad_tokens(server, name).items():
        client = Pilot(server, name, password)
        assert await client.enter() == "failed_auth", fault
        await client.leave()


async def test_no_token_is_logged(server: XmppServer, client: Pilot) -> None:
    refused = Pilot(server, client.boundjid.user, token(server, pilot_id()))
    await refused.enter()
    await refused.leave()
    assert client.boundjid.user in server.said
    assert not any(person.password in server.said for person in (client, refused))


async def test_a_pilot_has_the_resource_pilot(server: XmppServer) -> None:
    bind = (
        "<iq type='set' id='b1'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'>"
        "<resource>another</resource></bind></iq>"
    )
    async with stranger(server) as raw:
        await raw.log_in(server, pilot_id())
        assert "not-allowed" in await raw.say(bind, "</iq>")


async def test_no_login_without_tls(server: XmppServer) -> None:
    name = pilot_id()
    async with stranger(server) as raw:
        features = await raw.features()
        assert "<required/>" in features
        assert "mechanism" not in features
        assert "success" not in await raw.authenticate(name, token(server, name))


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated")
async def test_no_old_tls(server: XmppServer) -> None:
    async with stranger(server) as raw:
        await raw.features()
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await raw.encrypt(server.authority.file, ssl.TLSVersion.TLSv1_1)


async def test_a_pilot_trusts_only_its_own_authority(server: XmppServer, tmp_path: Path) -> None:
    other = Authority(tmp_path / "other.pem", "another authority")
    name = pilot_id()
    client = Pilot(server, name, token(server, name), trusts=other.file)
    assert await client.enter() == "disconnected"
    assert_no_credential(client)


async def test_a_pilot_wants_the_right_host_name(kind: type[XmppServer]) -> None:
    async with running(kind, certified="elsewhere.test") as server:
        name = pilot_id()
        client = Pilot(server, name, token(server, name))
        assert await client.enter() == "disconnected"
        assert_no_credential(client)


def assert_no_credential(client: Pilot) -> None:
    assert any("<starttls" in text for text in client.sent)
    assert not any("<auth" in text for text in client.sent)


async def test_registration_is_not_offered(server: XmppServer, client: Pilot) -> None:
    register = "<iq type='get' id='r1'><query xmlns='jabber:iq:register'/></iq>"
    async with stranger(server) as raw:
        assert "register" not in await raw.features()
        await raw.encrypt(server.authority.file)
        features = await raw.features()
        assert "register" not in features
        assert "<mechanism>PLAIN</mechanism>" in features
        assert features.count("<mechanism>") == 1
        assert "type='result'" not in (await raw.say(register, ">")).replace('"', "'")
    with pytest.raises(IqError) as refused:
        asked = client.make_iq_get(queryxmlns="jabber:iq:register", ito=DOMAIN)
        await asked.send(timeout=SECONDS)
    assert refused.value.condition == "not-allowed"


async def test_pilots_do_not_reach_each_other(
    server: XmppServer, component: Manager, client: Pilot
) -> None:
    async with pilot(server) as other:
        for address in (other.boundjid.full, other.boundjid.bare):
            with pytest.raises(IqError) as refused:
                await client.ask(address)
            assert refused.value.condition == "not-allowed"
            client.send_message(mto=JID(address), mbody="hello")
            error = await client.wait_until("message_error", SECONDS)
            assert error["error"]["condition"] == "not-allowed"
            client.send_presence(pto=JID(address))
            error = await client.wait_until("presence_error", SECONDS)
            assert error["error"]["condition"] == "not-allowed"
        # Whatever had been let through would have come before this
        asked = component.make_iq_set(ito=other.boundjid, ifrom=component.boundjid)
        asked.append(client.frame(MANAGER).xml[0])
        await asked.send(timeout=SECONDS)
        assert other.received == [MANAGER]


@pytest.mark.parametrize("address", ["somebody@elsewhere.example", "elsewhere.example", DOMAIN])
async def test_a_pilot_reaches_nothing_else(client: Pilot, address: str) -> None:
    with pytest.raises(IqError) as refused:
        await client.ask(address)
    assert refused.value.condition == "not-allowed"


async def test_a_pilot_may_ping_the_server(client: Pilot) -> None:
    client.register_plugin("xep_0199")
    assert await client.plugin["xep_0199"].ping(JID(DOMAIN), timeout=SECONDS) >= 0


async def test_a_manager_that_is_not_there(client: Pilot) -> None:
    with pytest.raises(IqError) as refused:
        await client.ask(MANAGERS[1])
    assert refused.value.condition == "remote-server-timeout"
    assert refused.value.etype == "wait"


async def test_frames_up_to_64_kib_pass(client: Pilot) -> None:
    assert await client.ask(MANAGER, size=63 * KIB) == str(63 * KIB)


async def test_a_larger_stanza_ends_the_stream(client: Pilot) -> None:
    client.frame(MANAGER, size=80 * KIB).send()
    error = await client.wait_until("stream_error", SECONDS)
    assert error["condition"] == "policy-violation"


BIND = (
    "<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'>"
    "<resource>pilot</resource></bind></iq>"
)
_URI = "u" * 12_000
_PAD = "x" * 26_000
"""expat puts off long tags until as much again has come."""
_ATTRIBUTES = " ".join(f"a:b{n}='x'" for n in range(1000))
_NESTED = 9000 * "<a>" + 9000 * "</a>"


@pytest.mark.parametrize("kind", ["set", "result", "error", "nonsense"])
@pytest.mark.parametrize(
    "content",
    [
        f"<x xmlns='v' xmlns:a='{_URI}'>{_PAD}{1000 * '<a:b/>'}</x>",
        f"<x xmlns='v' xmlns:a='{_URI}' {_ATTRIBUTES}>{_PAD}</x>",
        f"<x xmlns='v'>{_NESTED}</x>",
    ],
    ids=["elements", "attributes", "depth"],
)
async def test_what_grows_on_its_way_hurts_nobody(
    server: XmppServer, kind: str, content: str
) -> None:
    login = ComponentLogin(MANAGER, server.secret, "127.0.0.1", server.component_port)
    stream = ComponentStream(login, LIMITS)
    await stream.open()
    try:
        await strike(server, f"<iq type='{kind}' to='{MANAGER}' id='1'>{content}</iq>")
        async with pilot(server) as good, asyncio.timeout(SECONDS):
            good.frame(MANAGER).send()
            async for stanza in stream.stanzas():  # raises an error if the stream has ended
                if stanza.get("from") == good.boundjid.full:
                    break
    finally:
        await stream.close()


async def strike(server: XmppServer, stanza: str) -> None:
    """As a pilot; returns when the server has dealt with it."""
    ping = f"<iq type='get' to='{DOMAIN}' id='last'><ping xmlns='urn:xmpp:ping'/></iq>"
    async with stranger(server) as raw:
        await raw.log_in(server, pilot_id())
        await raw.say(BIND, "</iq>")
        await raw.say(stanza + ping + 1000 * " ", "'last'")


async def test_the_rate_limit_lets_256_kb_per_second_pass(client: Pilot) -> None:
    began = time.monotonic()
    await asyncio.gather(*(client.ask(MANAGER, size=60 * KIB) for _ in range(40)))
    assert 256_000 <= 40 * 60 * KIB / (time.monotonic() - began) <= 2_000_000


async def test_who_says_much_is_heard_later(server: XmppServer, client: Pilot) -> None:
    nonsense, count = f"<iq type='set' to='{MANAGER}'/>", 2000
    async with stranger(server) as raw:
        await raw.log_in(server, pilot_id())
        await raw.say(BIND, "</iq>")
        ping = f"<iq type='get' to='{DOMAIN}' id='last'><ping xmlns='urn:xmpp:ping'/></iq>"
        began = time.monotonic()
        await raw.say(count * nonsense + ping, "'last'")
        assert time.monotonic() - began > 3  # 1,000 at once, and 250 a second
    assert await client.ask(MANAGER) == "2"


async def test_a_cut_connection_is_resumed(server: XmppServer, component: Manager) -> None:
    name = pilot_id()
    client = Pilot(server, name, token(server, name))
    client.register_plugin("xep_0198")
    client.go()
    await client.wait_until("sm_enabled", SECONDS)
    client.stay()
    assert client.transport is not None
    client.transport.abort()
    await client.wait_until("session_resumed", SECONDS)
    assert await client.ask(MANAGER) == "2"
    await client.leave()


async def test_a_newer_login_replaces_the_older(server: XmppServer, client: Pilot) -> None:
    gone = asyncio.ensure_future(client.first_of("stream_error"))
    async with pilot(server, client.boundjid.user) as newer:
        assert await gone == "stream_error"
        assert await newer.ask(MANAGER) == "2"


async def test_a_component_needs_the_secret(server: XmppServer) -> None:
    component = Manager(server, secret="wrong")
    component.go()
    error = await component.wait_until("stream_error", SECONDS)
    assert error["condition"] == "not-authorized"
    await component.leave()


async def test_everything_listens_on_loopback(server: XmppServer) -> None:
    heard = server.listeners
    assert {found.address for found in heard} == {"127.0.0.1"}
    assert {server.c2s_port, server.component_port} <= {found.port for found in heard}


async def test_all_come_back_after_a_restart(
    server: XmppServer, component: Manager, client: Pilot
) -> None:
    client.stay()
    again = [
        asyncio.ensure_future(person.wait_until("session_start", 2 * SECONDS))
        for person in (client, component)
    ]
    await server.stop()
    await server.start()
    await asyncio.gather(*again)
    assert await client.ask(MANAGER) == "2"
