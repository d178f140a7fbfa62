"""Heartbeat over a real chat room: our answerers, an original's double, and the real command."""

import asyncio
import json
import os
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from copilot_agent.protocol.copilot1.envelope import Envelope
from copilot_agent.xmpp.account import Account
from copilot_agent.xmpp.client import ClientStream
from copilot_agent.xmpp.errors import XmppError
from copilot_agent.xmpp.heartbeat import Heartbeats
from tests.harness.copilot1_server import CONFERENCE, Copilot1Server
from tests.harness.originals import OriginalHeartbeat, playing
from tests.harness.programs import TOOLS, eventually

SECONDS = 20.0
ROOM = f"heartbeats@{CONFERENCE}"


def answering(stream: ClientStream, seat: str) -> Account:
    async def nothing_else(_: Envelope) -> None:
        """There is no other part to this account."""

    async def send(envelope: Envelope) -> None:
        await account.send(envelope)

    heartbeats = Heartbeats(lambda: str(uuid.uuid4()))
    account = Account(stream, heartbeats.before(nothing_else, send, time.monotonic), room=seat)
    return account


@asynccontextmanager
async def answerer(server: Copilot1Server, name: str, nick: str) -> AsyncIterator[ClientStream]:
    """A manager's or an agent's account that does nothing but answer."""
    stream = ClientStream(await server.login(name, nick))
    account = answering(stream, f"{ROOM}/{nick}")
    running = asyncio.create_task(account.run())
    try:
        await asyncio.wait_for(account.wait_joined(), SECONDS)
        yield stream
    finally:
        running.cancel()
        await asyncio.wait([running])


class Command:
    """`copilot copilot1` as an operator has it, with a configuration file."""

    def __init__(self, home: Path) -> None:
        self.home = home

    async def run(self, *words: str) -> tuple[int, str, str]:
        process = await asyncio.create_subprocess_exec(
            *(str(TOOLS / "copilot"), "copilot1", *words),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={
                "PATH": os.environ["PATH"],
                "XDG_CONFIG_HOME": str(self.home),
                "LC_ALL": "C.UTF-8",
            },
        )
        out, err = await asyncio.wait_for(process.communicate(), SECONDS)
        assert process.returncode is not None
        return process.returncode, out.decode(), err.decode()


@pytest.fixture
async def command(server: Copilot1Server, tmp_path: Path) -> Command:
    jid = await server.account("operator")
    (tmp_path / "password").touch(mode=0o600)
    (tmp_path / "password").write_text(server.passwords[jid] + "\n")
    (tmp_path / "copilot").mkdir()
    file = tmp_path / "copilot" / "config.toml"
    file.touch(mode=0o600)
    file.write_text(
        f'[copilot1]\njid = "{jid}"\npassword_file = "{tmp_path / "password"}"\nroom = "{ROOM}"\n'
        f'server = "127.0.0.1:{server.c2s_port}"\nca = "{server.authority.file}"\n'
    )
    return Command(tmp_path)


@pytest.fixture
async def original(server: Copilot1Server) -> AsyncIterator[OriginalHeartbeat]:
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(answerer(server, "jm", "alpha"))
        await stack.enter_async_context(answerer(server, "agent", "pilot"))
        double = OriginalHeartbeat(await server.login("old-jm", "beta"), ROOM)
        yield await stack.enter_async_context(playing(double))


def all_three(original: OriginalHeartbeat) -> list[str]:
    """By name, so that the command need not wait for others."""
    nicks = ("alpha", "pilot", original.nick)
    return ["--seconds", "15", *(word for nick in nicks for word in ("--to", nick))]


async def test_everybody_in_the_room_answers_a_ping(
    command: Command, original: OriginalHeartbeat
) -> None:
    code, out, err = await command.run("ping", "--seconds", "2")
    assert (code, err) == (0, "")
    head, *lines = out.splitlines()
    assert head.split() == ["WHO", "SECONDS"]
    assert {line.split()[0] for line in lines} == {"alpha", "pilot", original.nick}


async def test_statuses_of_ours_and_of_originals_are_one_table(
    command: Command, original: OriginalHeartbeat
) -> None:
    """And the originals get the acknowledgements that they wait for."""
    code, out, _ = await command.run("load", *all_three(original), "--json")
    rows = {row["who"]: row["values"] for row in json.loads(out)}
    assert code == 0 and rows.keys() == {"alpha", "pilot", original.nick}
    assert rows[original.nick] == {"1min": "2.38", "5min": "3.31", "15min": "2.82"}
    ours = float(Path("/proc/loadavg").read_text().split()[2])
    assert float(rows["alpha"]["15min"]) == pytest.approx(ours, abs=0.5)
    await eventually(lambda: original.acknowledged == original.sent, what="acknowledged")


async def test_disks_memory_and_processes(command: Command, original: OriginalHeartbeat) -> None:
    disk, memory, processes = await asyncio.gather(
        *(command.run(verb, *all_three(original)) for verb in ("disk", "memory", "processes"))
    )
    assert disk[1].splitlines()[0].split()[1:] == [
        *("PATH", "MOUNTPOINT", "TOTALBLOCKS", "USED", "AVAILABLE", "USED%")
    ]
    assert any("/dev/vda" in line for line in disk[1].splitlines() if original.nick in line)
    assert {"mem", "swap"} <= set(memory[1].split())
    (nothing,) = (line for line in memory[1].splitlines() if original.nick in line)
    assert nothing.split() == [original.nick]
    assert "redis-server 127.0.0.1:16379" in processes[1]
    assert str(TOOLS) not in processes[1], "names only, no arguments"


async def test_one_is_asked_by_nick_or_directly(
    command: Command, original: OriginalHeartbeat
) -> None:
    began = asyncio.get_running_loop().time()
    words = ("--to", original.nick, "--to", "jm@copilot.test/alpha", "--seconds", "15")
    code, out, _ = await command.run("ping", *words, "--output", "quiet")
    assert (code, set(out.split())) == (0, {original.nick, "jm@copilot.test/alpha"})
    assert asyncio.get_running_loop().time() - began < 10, "it waits no longer than it must"


async def test_nobody_there(command: Command, server: Copilot1Server) -> None:
    code, out, err = await command.run("ping", "--room", f"empty@{CONFERENCE}", "--seconds", "0.5")
    assert (code, out.split(), err.split()) == (1, [], ["none"])
    code, out, err = await command.run("ping", "--to", "ghost", "--seconds", "10")
    assert (code, out) == (1, "")
    assert f"not there: {ROOM}/ghost" in err


async def test_what_is_wrong_is_said(command: Command) -> None:
    nowhere = "lounge@nowhere.copilot.test"
    wrong = command.home / "wrong"
    wrong.touch(mode=0o600)
    wrong.write_text("nonsense")
    authorities = "/etc/ssl/certs/ca-certificates.crt"
    room, password, ca, unchecked = await asyncio.gather(
        command.run("ping", "--room", nowhere),
        command.run("ping", "--password-file", str(wrong)),
        command.run("ping", "--ca", authorities),
        command.run("ping", "--ca", authorities, "--insecure", "--to", "ghost"),
    )
    assert room[0] == 1 and f"the chat room {nowhere} is closed to us" in room[2]
    assert password[0] == 1 and "refuses the login" in password[2]
    assert "--password-file" in password[2]
    assert ca[0] == 1 and "CERTIFICATE_VERIFY_FAILED" in ca[2] and "--ca" in ca[2]
    assert "not there" in unchecked[2], "with --insecure it gets in"


async def test_a_nick_that_is_taken_keeps_nobody_out(
    command: Command, server: Copilot1Server
) -> None:
    async with answerer(server, "jm", "alpha"), answerer(server, "agent", "alpha"):
        code, out, _ = await command.run("ping", "--nick", "alpha", "--seconds", "2")
    assert code == 0
    assert [line.split()[0] for line in sorted(out.splitlines()[1:])] == ["alpha", "alpha-2"]


async def test_an_account_without_its_room_is_asked_directly(
    command: Command, server: Copilot1Server
) -> None:
    stream = ClientStream(await server.login("agent", "outside"))
    outside = answering(stream, "lounge@nowhere.copilot.test/outside")
    running = asyncio.create_task(outside.run())
    try:
        with pytest.raises(XmppError, match="closed to us"):
            await asyncio.wait_for(outside.wait_joined(), SECONDS)
        code, out, _ = await command.run("ping", "--to", stream.jid, "--output", "quiet")
        assert (code, out.strip()) == (0, stream.jid)
    finally:
        running.cancel()
        await asyncio.wait([running])
