"""Two and three manager processes on one database, with pilots on WebSockets."""

import asyncio
import json
import time
from collections import Counter
from contextlib import AsyncExitStack
from typing import Any

import aiohttp
import pytest

from copilot_agent.protocol.errors import CopilotError
from copilot_agent.protocol.frames import CommandKind
from copilot_agent.protocol.job import JobState
from deploy.demo.processes import call
from job_manager_adapter.client import Client
from tests.integration.store.conftest import House
from tests.integration.store.worker import Worker, worker

TRUE = "/bin/true"


async def test_a_job_submitted_at_one_reaches_an_idle_pilot_at_the_other(house: House) -> None:
    await house.start(2)
    (secret,) = await house.secrets()
    async with worker(house.urls, secret, first=1) as pilot:
        jobs = await house.jobs(0)
        began = time.monotonic()
        job = await jobs.submit(TRUE)
        await pilot.until("acceptance", lambda: (job, 1) in pilot.accepted, 2.0)
        assert time.monotonic() - began < 1.5  # far below the look for what was not heard of
        view = await jobs.ended(job)
        assert view.state is JobState.SUCCEEDED
        await pilot.until("receipt", lambda: job in pilot.receipts.values())


async def test_a_cancel_at_one_reaches_the_pilot_at_the_other(house: House) -> None:
    await house.start(2)
    (secret,) = await house.secrets()
    async with worker(house.urls, secret, first=1, run_seconds=600) as pilot:
        jobs = await house.jobs(0)
        job = await jobs.submit(TRUE)
        await pilot.until("offer", lambda: bool(pilot.held))
        await jobs.client.jobs.cancel([job])
        told = (CommandKind.CANCEL, job)
        await pilot.until("cancel", lambda: told in pilot.commands, 2.0)
        assert (await jobs.client.jobs.show(job)).state is JobState.CANCELLED


async def test_drains_and_bans_at_one_reach_the_pilot_at_the_other(house: House) -> None:
    await house.start(2)
    (secret,) = await house.secrets()
    async with worker(house.urls, secret, first=1, run_seconds=600) as pilot:
        jobs = await house.jobs(0)
        client, name = jobs.client, pilot.pilot.id
        await client.pilots.drain(name)
        kinds = [CommandKind.DRAIN, CommandKind.UNDRAIN, CommandKind.RETIRE]
        await pilot.until("drain", lambda: (kinds[0], None) in pilot.commands, 2.0)
        job = await jobs.submit(TRUE)
        await client.pilots.drain(name, undo=True)
        await pilot.until("undrain", lambda: (kinds[1], None) in pilot.commands, 2.0)
        await pilot.until("offer", lambda: (job, 1) in pilot.held)
        await client.hosts.ban((await client.pilots.show(name)).host, reason="a test")
        await pilot.until("end", lambda: (kinds[2], None) in pilot.commands, 2.0)
        assert (await jobs.reached(job, "waiting")).attempt == 1


async def test_a_killed_managers_pilots_go_on_at_the_other(house: House) -> None:
    first, _ = await house.start(2)
    (secret,) = await house.secrets()
    async with worker(house.urls, secret, first=0, run_seconds=2.0) as pilot:
        jobs = await house.jobs(1)
        job = await jobs.submit(TRUE)
        await pilot.until("offer", lambda: bool(pilot.held))
        await jobs.reached(job, "running")
        await first.kill()
        await pilot.until("acceptance", lambda: (job, 1) in pilot.accepted, 10.0)
        view = await jobs.ended(job)
        assert [attempt.outcome for attempt in view.attempts] == ["succeeded"]
        await pilot.until("receipt", lambda: job in pilot.receipts.values())


async def test_what_a_killed_managers_dead_pilot_held_is_run_again(house: House) -> None:
    first, _ = await house.start(2)
    gone, here = await house.secrets(2)
    jobs = await house.jobs(1)
    async with worker(house.urls[:1], gone, run_seconds=600) as dead:
        job = await jobs.submit(TRUE)
        await dead.until("offer", lambda: bool(dead.held))
    await first.kill()
    async with worker(house.urls, here, first=1) as pilot:
        # adopted after 5 s, and then the lease's 3 s as a grace
        await pilot.until("second attempt", lambda: (job, 2) in pilot.accepted, 20.0)
    view = await jobs.ended(job)
    assert [attempt.outcome for attempt in view.attempts] == ["lost", "succeeded"]


async def test_three_managers_one_killed_lose_nothing_and_accept_nothing_twice(
    house: House,
) -> None:
    victim, *_ = await house.start(3)
    secrets = await house.secrets(6)
    clients = [await house.jobs(index) for index in (1, 2)]
    async with AsyncExitStack() as stack:
        pilots = [
            await stack.enter_async_context(worker(house.urls, secret, first=index % 3))
            for index, secret in enumerate(secrets)
        ]
        names: list[str] = []
        for number in range(60):
            names.append(await clients[number % 2].submit(TRUE))
            if number == 30:
                await victim.kill()
        await asyncio.gather(*(clients[0].ended(job) for job in names))
        for pilot in pilots:
            await pilot.until("verdicts", lambda pilot=pilot: not pilot.reports)
        await _each_once(clients[0].client, pilots, names)
        done = sorted(names)
        await _until_receipts(pilots, done)


async def _each_once(client: Client, pilots: list[Worker], names: list[str]) -> None:
    told: Counter[str] = Counter()
    for pilot in pilots:
        told.update(job for job, _ in pilot.accepted)
    assert set(told) == set(names)
    assert max(told.values()) == 1
    for job in names:
        view = await client.jobs.show(job)
        good = [attempt for attempt in view.attempts if attempt.outcome == "succeeded"]
        assert (view.state, len(good)) == (JobState.SUCCEEDED, 1)


async def _until_receipts(pilots: list[Worker], jobs: list[str]) -> None:
    """Each job's once, at the pilot that ran it."""
    for pilot in pilots:
        mine = sorted(job for job, _ in pilot.accepted)
        await pilot.until("receipts", lambda p=pilot, m=mine: sorted(p.receipts.values()) == m)
    assert sorted(job for pilot in pilots for job in pilot.receipts.values()) == jobs


async def test_events_of_all_managers_come_from_each(house: House) -> None:
    await house.start(2)
    (secret,) = await house.secrets()
    async with worker(house.urls, secret, first=1):
        jobs = await house.jobs(0)
        job = await jobs.submit(TRUE)
        async with asyncio.timeout(10):
            seen = await _events_until(house, job, {"waiting", "leased", "succeeded"})
    numbers = [event["id"] for event in seen]
    assert numbers == sorted(set(numbers))


async def _events_until(house: House, job: str, states: set[str]) -> list[dict[str, Any]]:
    """All until the job was in these states; managers write theirs down a moment apart."""
    third = house.managers[0]
    headers = {"Authorization": f"Bearer {third.token}"}
    seen: list[dict[str, Any]] = []
    async with (
        aiohttp.ClientSession(third.url, headers=headers) as http,
        http.get("/api/v1/events", params={"after": "0"}) as stream,
    ):
        async for line in stream.content:
            if line.startswith(b"data:"):
                seen.append(json.loads(line.removeprefix(b"data:")))
                if states <= {event["state"] for event in seen if event["subject"] == job}:
                    return seen
    raise AssertionError("the stream ended")


async def test_a_manager_with_other_keys_is_refused(house: House) -> None:
    await house.start(1)
    stranger = house.manager()
    stranger.settings = f'[store]\nurl = "{house.url}"\n'
    stranger.root.mkdir()
    with pytest.raises(CopilotError, match="share another directory"):
        await call((*stranger.command, "serve"))
