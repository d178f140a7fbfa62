"""The conversation over XMPP, TLS on: job cycles, latency, idle pilots, and an agent's memory.

Each figure stands for Prosody and for ejabberd, in Debian's versions and as `deploy` configures
them; a WebSocket in the same run is the peer.
"""

import asyncio
import statistics
import time
from contextlib import AsyncExitStack
from pathlib import Path

from job_manager_adapter.client import Client
from tests.bench import latency
from tests.bench.cycles_load import Figures, Load, measure
from tests.bench.frame import Frame
from tests.bench.pilots import pilots, secrets
from tests.bench.processes import cpu_seconds, cpu_since, rss_bytes
from tests.bench.results import Result, at_least, at_most
from tests.harness import programs
from tests.harness.ejabberd import Ejabberd
from tests.harness.jobs import Jobs
from tests.harness.sockets import family
from tests.harness.xmpp import Prosody, XmppServer, joined, running

NAME = "xmpp"
DESCRIPTION = "job cycles, latency and idle pilots over Prosody and ejabberd"
SECONDS = 900.0
LEAST = {"prosody": 800.0, "ejabberd": 1500.0}
MOST_MS, MOST_KIB, MOST_MIB, IDLE = 10.0, 400.0, 60.0, 2000
POLICY = {"heartbeat_seconds": 30.0, "lease_seconds": 300.0}
QUIET_SECONDS = 3.0
PEER = "the same over WebSockets"


async def run(frame: Frame) -> list[Result]:
    seconds = frame.pick(10.0, 1.0)
    async with programs.manager(frame.root / "websocket", **POLICY) as manager:
        socket = await measure([manager], Load(window=8, seconds=seconds))
    frame.say(f"window 8 over WebSockets: {socket.per_second:.0f} cycles/s")
    results = []
    for kind in (Prosody, Ejabberd):
        async with running(kind) as server:
            results += await _cycles(frame, server, seconds, socket)
            results += await _latency(frame, server)
            results += await _idle(frame, server)
            results += await _agent(frame, server)
            results += await _back(frame, server)
    return results


def _home(frame: Frame, server: XmppServer, what: str) -> tuple[Path, str]:
    root = frame.root / f"{server.name}-{what}"
    return root, joined(server, root / "data", root / "xmpp")


async def _cycles(
    frame: Frame, server: XmppServer, seconds: float, socket: Figures
) -> list[Result]:
    results = []
    for window in (8, 1):
        root, settings = _home(frame, server, f"window-{window}")
        load = Load(
            window=window, carrier="xmpp", authority=str(server.authority.file), seconds=seconds
        )
        async with programs.manager(root, settings=settings, **POLICY) as manager:
            before = cpu_seconds(family(server.pid))
            got = await measure([manager], load)
            used = cpu_since(family(server.pid), before)
        each = 1e6 * used / max(1, got.cycles)
        frame.say(
            f"{server.name}, window {window}: {got.per_second:.0f} cycles/s, manager "
            f"{got.manager_us:.0f} us CPU for each, server about {each:.0f} us"
        )
        results.append(
            Result(
                f"{NAME}.{server.name}.window_{window}",
                round(got.per_second, 1),
                "/s",
                at_least(LEAST[server.name]) if window == 8 else None,
                PEER if window == 8 else None,
                round(socket.per_second, 1) if window == 8 else None,
                round(got.manager_us, 1),
            )
        )
    return results


async def _latency(frame: Frame, server: XmppServer) -> list[Result]:
    root, settings = _home(frame, server, "latency")
    jobs = frame.pick(1000, 20)
    async with programs.manager(root, settings=settings, **POLICY) as manager:
        waits, _ = await latency.waits(
            manager, jobs, carrier="xmpp", authority=str(server.authority.file)
        )
    percent = [round(each, 2) for each in statistics.quantiles(waits, n=100, method="inclusive")]
    frame.say(f"{server.name}: offer after {percent[49]} ms (p50), {percent[98]} ms (p99)")
    name = f"{NAME}.{server.name}.offer"
    return [
        Result(f"{name}_p50", percent[49], "ms", at_most(MOST_MS)),
        Result(f"{name}_p99", percent[98], "ms"),
    ]


async def _idle(frame: Frame, server: XmppServer) -> list[Result]:
    """All attached at once; the server's memory with all its helpers'."""
    root, settings = _home(frame, server, "idle")
    count = frame.pick(IDLE, 10)
    await asyncio.sleep(QUIET_SECONDS)
    async with programs.manager(
        root, settings=settings, heartbeat_seconds=300.0, lease_seconds=3000.0
    ) as manager:
        assert manager.process is not None
        pid, made = manager.process.pid, await secrets(manager, count)
        before, mine = _memory(server), rss_bytes(pid)
        async with pilots(
            [manager.url], made, count=count, carrier="xmpp", authority=str(server.authority.file)
        ) as fleet:
            await asyncio.sleep(QUIET_SECONDS)
            kib = (_memory(server) - before) / 1024 / count
            ours = (rss_bytes(pid) - mine) / 1024 / count
            now = await fleet.read()
    frame.say(f"{server.name}: {now.attached} idle, {kib:.0f} KiB each, {ours:.1f} in the manager")
    name = f"{NAME}.{server.name}.idle"
    return [
        Result(name, now.attached, "1", at_least(count)),
        Result(f"{name}_memory", round(kib, 1), "KiB", at_most(MOST_KIB)),
        Result(f"{name}_manager_memory", round(ours, 1), "KiB"),
    ]


def _memory(server: XmppServer) -> int:
    return sum(rss_bytes(pid) for pid in family(server.pid))


async def _agent(frame: Frame, server: XmppServer) -> list[Result]:
    """A real one, after jobs."""
    root, settings = _home(frame, server, "agent")
    jobs = frame.pick(200, 3)
    options = ("--cores", "2", "--carriers", "xmpp", "--ca", str(server.authority.file))
    async with (
        programs.manager(root, settings=settings, **POLICY) as manager,
        programs.agent(manager, options=options) as agent,
        programs.client(manager) as client,
    ):
        submitted = Jobs(client)
        names = [await submitted.submit("/bin/true") for _ in range(jobs)]
        for name in names:
            await submitted.ended(name, 60)
        assert agent.process is not None
        mib = rss_bytes(agent.process.pid) / (1 << 20)
    frame.say(f"{server.name}: an agent has {mib:.1f} MiB")
    return [Result(f"{NAME}.{server.name}.agent_memory", round(mib, 1), "MiB", at_most(MOST_MIB))]


async def _back(frame: Frame, server: XmppServer) -> list[Result]:
    """Seconds from the server's restart until all agents are attached again."""
    root, settings = _home(frame, server, "back")
    count = frame.pick(10, 2)
    options = ("--cores", "1", "--carriers", "xmpp", "--ca", str(server.authority.file))
    async with AsyncExitStack() as stack:
        manager = await stack.enter_async_context(
            programs.manager(root, settings=settings, **POLICY)
        )
        for number in range(count):
            await stack.enter_async_context(programs.agent(manager, f"agent-{number}", options))
        client = await stack.enter_async_context(programs.client(manager))
        await _on_xmpp(client, count)
        await server.stop()
        await _on_xmpp(client, 0)
        await server.start()
        began = time.monotonic()
        await _on_xmpp(client, count)
        seconds = time.monotonic() - began
    frame.say(f"{server.name}: {count} agents are back {seconds:.1f} s after the restart")
    return [Result(f"{NAME}.{server.name}.back_after_restart", round(seconds, 2), "s")]


async def _on_xmpp(client: Client, count: int) -> None:
    """Waits until so many pilots are attached over it."""

    async def so_many() -> bool:
        views = (await client.pilots.list()).items
        return sum(view.carrier == "xmpp" for view in views) == count

    await programs.eventually(so_many, 90, f"{count} pilots on XMPP")
