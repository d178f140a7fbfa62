"""The database itself: migrated by two at once, restarted during work, dumped and restored."""

import asyncio
import re
import shutil
from pathlib import Path

import aiohttp
import pytest

from copilot_agent.protocol.errors import CopilotError, ErrorCode
from copilot_agent.protocol.job import JobState
from deploy.demo.processes import call
from job_manager_adapter.store.base import StoreError
from job_manager_adapter.store.postgres import PostgresStore
from job_manager_adapter.store.postgres_link import migrations
from tests.harness.postgres import Postgres, cluster
from tests.harness.programs import TOOLS
from tests.integration.store.conftest import House
from tests.integration.store.worker import worker

TRUE = "/bin/true"


async def test_two_managers_migrate_at_once(postgres: Postgres) -> None:
    stores = [PostgresStore(url) for url in [postgres.database()] * 3]
    await asyncio.gather(*(store.open() for store in stores))
    for store in stores:
        assert await store.check() == []
        await store.close()


async def test_a_newer_schema_is_refused_with_the_way_out(postgres: Postgres) -> None:
    url = postgres.database()
    store = PostgresStore(url)
    await store.open()
    await store.close()
    newer = len(migrations()) + 1
    postgres.run("psql", "--dbname", url, "-c", "UPDATE schema_version SET version = version + 1")
    with pytest.raises(StoreError, match=f"schema {newer}") as refused:
        await PostgresStore(url).open()
    assert "newer program" in refused.value.remedy


async def test_no_error_shows_the_password(tmp_path: Path) -> None:
    for address in ("127.0.0.1:1", "no-such-host.invalid", f"/x?host={tmp_path}", "[::1"):
        url = f"postgresql://me:hush-hush@{address}/nothing".replace("/x?", "/nothing?")
        with pytest.raises(CopilotError) as refused:
            await PostgresStore(url).open()
        error = refused.value
        assert error.code in (ErrorCode.UNAVAILABLE, ErrorCode.INVALID_REQUEST)
        assert error.remedy and "hush" not in f"{error}{error.remedy}{error.__cause__}"


async def test_work_goes_on_when_the_database_is_back(tmp_path: Path) -> None:
    with cluster() as postgres:
        house = House(tmp_path, postgres.database())
        try:
            await _restart_during_work(postgres, house)
        finally:
            await house.close()


async def _restart_during_work(postgres: Postgres, house: House) -> None:
    await house.start(2)
    one, two = await house.secrets(2)
    jobs = await house.jobs(0)
    async with (
        worker(house.urls, one, first=0, run_seconds=2.0) as first,
        worker(house.urls, two, first=1, run_seconds=2.0) as second,
    ):
        names = [await jobs.submit(TRUE) for _ in range(8)]
        await first.until("offers", lambda: bool(first.held))
        postgres.stop()
        async with (
            aiohttp.ClientSession(house.urls[0], headers=house.headers) as http,
            http.get(f"/api/v1/jobs/{names[0]}") as reply,
        ):
            assert (reply.status, reply.headers["Retry-After"]) == (503, "5")
        await first.until("reports", lambda: bool(first.reports))  # finished while it was away
        postgres.start()
        ended = [await jobs.ended(job) for job in names]
        for pilot in (first, second):
            await pilot.until("verdicts", lambda pilot=pilot: not pilot.reports)
    assert [view.state for view in ended] == [JobState.SUCCEEDED] * 8
    told = sorted(job for pilot in (first, second) for job, _ in pilot.accepted)
    assert told == sorted(names)


async def test_a_backup_is_restored_into_another_database(house: House, postgres: Postgres) -> None:
    (one,) = await house.start(1)
    (secret,) = await house.secrets()
    jobs = await house.jobs(0)
    async with worker(house.urls, secret) as pilot:
        done = await jobs.submit(TRUE)
        await pilot.until("receipt", lambda: done in pilot.receipts.values())
    waiting = await jobs.submit(TRUE)
    said = await call((*one.command, "backup", str(house.folder / "backup")))
    assert "database, keys" in said
    [copy] = (house.folder / "backup").iterdir()
    assert copy.stat().st_mode & 0o077 == 0 and (copy / "manager.dump").stat().st_mode & 0o077 == 0
    await one.stop()

    fresh = House(house.folder / "restored", postgres.database())
    postgres.run("pg_restore", "--no-owner", "--dbname", fresh.url, _readable(copy, postgres))
    shutil.copytree(copy, fresh.folder / "shared")
    try:
        (other,) = await fresh.start(1)
        token = await other.user_token("experiment", "demo")
        assert token
        again = await fresh.jobs(0)
        assert (await again.client.jobs.show(done)).state is JobState.SUCCEEDED
        (secret,) = await fresh.secrets()
        async with worker(fresh.urls, secret) as pilot:
            await pilot.until("receipt", lambda: waiting in pilot.receipts.values())
        assert re.search(r"PostgreSQL 15.*manager ", await call((*other.command, "doctor")))
    finally:
        await fresh.close()


def _readable(copy: Path, postgres: Postgres) -> str:
    """The database's user may not look into the test's directories."""
    target = postgres.folder / "manager.dump"
    shutil.copyfile(copy / "manager.dump", target)
    target.chmod(0o644)
    return str(target)


async def test_the_command_line_hides_the_password_and_says_what_is_wrong(tmp_path: Path) -> None:
    config = tmp_path / "manager.toml"
    url = f"postgresql://me:hush-hush@/nothing?host={tmp_path}"
    config.write_text(f'data_dir = "{tmp_path / "data"}"\n[store]\nurl = "{url}"\n')
    code, said = await _run(config, "config", "show")
    assert code == 0 and "hush" not in said
    for words in (["doctor"], ["serve"], ["token", "list"], ["backup", str(tmp_path / "backup")]):
        code, said = await _run(config, *words)
        assert code == 1, words
        assert "the database does not answer" in said and "store.url" in said, said
        assert "hush" not in said and "Traceback" not in said, said
    config.write_text('[store]\nurl = "mysql://me:hush-hush@host/x"\n')
    code, said = await _run(config, "config", "check")
    assert code == 1 and "store.url" in said and "hush" not in said


async def _run(config: Path, *words: str) -> tuple[int | None, str]:
    process = await asyncio.create_subprocess_exec(
        str(TOOLS / "copilot-manager"), "--config", str(config), *words, stdout=-1, stderr=-1
    )
    out, err = await process.communicate()
    return process.returncode, (out + err).decode()
