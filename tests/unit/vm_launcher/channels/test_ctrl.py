"""The `ctrl` channel, both ends: messages, bounds and new beginnings."""

import asyncio
import logging
from collections.abc import AsyncIterator

import pytest

from copilot_agent.host_channel.ctrl import GuestChannel
from copilot_agent.host_channel.hello import say_hello
from copilot_agent.protocol import guest
from vm_launcher.channels import HostChannel
from vm_launcher.channels.ctrl import ChannelDownError

from .conftest import Chardev

WELCOME = guest.Welcome(
    time=1.0, manager="http://127.0.0.1:8470", cores=2, memory_mib=512, disk_mib=1000
)


@pytest.fixture
async def host(chardev: Chardev) -> AsyncIterator[HostChannel]:
    channel = HostChannel(chardev.path)
    await channel.connect()
    await chardev.arrived.wait()
    yield channel
    await channel.close()


@pytest.fixture
async def agent(chardev: Chardev, host: HostChannel) -> AsyncIterator[GuestChannel]:
    port = say_hello("1.2", 5, False, port=chardev.port)
    channel = GuestChannel(port, agent_version="1.2", epoch=5)
    await channel.start()
    yield channel
    await channel.close()


async def test_hello_is_the_first_message(agent: GuestChannel, host: HostChannel) -> None:
    hello = await anext(host.messages())
    assert isinstance(hello, guest.Hello)
    assert (hello.epoch, hello.agent_version, hello.restarted) == (5, "1.2", False)
    assert hello.boot_seconds > 0


async def test_messages_go_both_ways(agent: GuestChannel, host: HostChannel) -> None:
    messages = host.messages()
    await anext(messages)
    await host.send(WELCOME)
    assert await anext(agent.messages()) == WELCOME
    await agent.send(guest.State(state="idle"))
    assert await anext(messages) == guest.State(state="idle")


async def test_renew_says_hello_with_the_new_epoch(agent: GuestChannel, host: HostChannel) -> None:
    messages = host.messages()
    await anext(messages)
    await agent.renew(6)
    renewed = await anext(messages)
    assert isinstance(renewed, guest.Hello)
    assert renewed.epoch == 6


async def test_hello_survives_half_a_line_of_an_earlier_agent(
    chardev: Chardev, host: HostChannel
) -> None:
    chardev.port.write(memoryview(b'{"type":"state","sta'))
    say_hello("1.2", 5, True, port=chardev.port)
    hello = await anext(host.messages())
    assert isinstance(hello, guest.Hello)
    assert hello.restarted
    assert host.malformed == 1


async def test_the_launcher_comes_back_and_hello_is_said_again(
    chardev: Chardev, host: HostChannel
) -> None:
    renewed: list[int] = []
    agent = GuestChannel(chardev.port, agent_version="1.2", epoch=5, on_renewed=renewed.append)
    await agent.start()
    messages = host.messages()
    await agent.send(guest.State(state="idle"))
    await anext(messages)
    await chardev.disconnect()
    hello = await anext(messages)
    assert isinstance(hello, guest.Hello)
    assert hello.epoch == 6
    assert renewed == [6]
    await agent.close()


async def test_hostile_lines_are_dropped_and_counted(chardev: Chardev, host: HostChannel) -> None:
    hostile = [
        b"not json",
        b"[" * 100_000,
        b'{"type":"launch_missiles"}',
        b'{"type":"state","state":"on fire"}',
        b'{"type":"hello","epoch":-1,"agent_version":"1"}',
        b"\xff\xfe\0",
        b'{"type":"log","level":"error","message":"' + b"x" * 2001 + b'"}',
    ]
    await chardev.inject(b"\n".join(hostile) + b"\n" + b"x" * 300_000 + b"\n")
    await chardev.inject(b'{"type":"pause_ok"}\n')
    assert await anext(host.messages()) == guest.PauseOk()
    assert (host.malformed, host.oversized) == (len(hostile), 1)


async def test_a_guest_that_floods_is_read_slowly(chardev: Chardev, host: HostChannel) -> None:
    async def flood() -> None:
        while True:
            await chardev.inject(b"{}\n" * 10_000)
            await chardev.drained()

    flooding = asyncio.create_task(flood())

    async def listen() -> None:
        async for message in host.messages():
            raise AssertionError(message)

    listening = asyncio.create_task(listen())
    await asyncio.wait([listening], timeout=0.5)
    flooding.cancel()
    assert 0 < host.malformed < 50_000
    listening.cancel()
    await asyncio.wait([listening, flooding])


async def test_a_guest_that_does_not_read_costs_no_memory(
    chardev: Chardev, host: HostChannel
) -> None:
    message = guest.Drain(deadline_seconds=1.0)
    with pytest.raises(ChannelDownError, match="does not read"):
        for _ in range(200_000):
            await host.send(message)


async def test_sending_without_a_vm_says_so(chardev: Chardev) -> None:
    channel = HostChannel(chardev.path)
    with pytest.raises(ChannelDownError, match="no VM"):
        await channel.send(WELCOME)


async def test_connecting_waits_for_the_socket_no_longer_than_asked(chardev: Chardev) -> None:
    channel = HostChannel(chardev.path.with_name("absent"))
    with pytest.raises(TimeoutError):
        await channel.connect(timeout=0.2)


async def test_the_guest_leaves_out_what_it_cannot_read(
    chardev: Chardev, agent: GuestChannel, host: HostChannel, caplog: pytest.LogCaptureFixture
) -> None:
    await anext(host.messages())
    with caplog.at_level(logging.WARNING):
        await chardev.inject_to_guest(
            b'{"type":"of_the_future"}\n{"type":"drain","undo":"perhaps"}\n'
            + b"x" * 300_000
            + b"\n"
        )
        await host.send(guest.Drain())
        assert await anext(agent.messages()) == guest.Drain()
    assert agent.ignored == 2
    assert "drain.undo" in caplog.text
    assert "of_the_future" not in caplog.text
    assert "longer than" in caplog.text


async def test_hello_without_a_launcher_gives_up(chardev: Chardev) -> None:
    with pytest.raises(TimeoutError):
        say_hello("1.2", 5, False, port=chardev.port, timeout=0.1)
