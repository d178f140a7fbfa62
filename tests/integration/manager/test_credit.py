"""`copilot credit`: a job's receipt in the ledger, as an operator and an experiment see it."""

import asyncio
import csv
import hashlib
import io
import json
from pathlib import Path

import aiohttp
import pytest

from copilot_agent.protocol.job import STDERR, STDOUT, JobSpec, Output
from job_manager_adapter.app import Manager
from job_manager_adapter.cli.main import main
from job_manager_adapter.client import Client
from tests.integration.manager.pilot import FakePilot, held, success

EMPTY = hashlib.sha256(b"").hexdigest()
LABEL = '=cmd|"/c calc"!A1 user=4 host=17'
"""Of somebody who likes spreadsheets of others to run programs."""


@pytest.fixture
async def earned(manager: Manager, http: aiohttp.ClientSession, experiment: str) -> str:
    """One job was done; the enrolment's id."""
    (made,) = await manager.services.enrolments.create(label=LABEL)
    pilot = FakePilot(http)
    await pilot.enrol(made.secret or "")
    async with Client(manager.url, experiment) as client:
        await client.jobs.submit([JobSpec(experiment="demo", command=("true",))])
    await pilot.poll(0)
    while not (frame := await pilot.poll()) or not frame.offers:
        pass
    (offer,) = frame.offers
    outputs = tuple(Output(name=name, sha256=EMPTY, size=0) for name in (STDOUT, STDERR))
    answer = await pilot.poll(held=held(offer), reports=(success(offer, outputs),))
    while not answer or not answer.verdicts:
        answer = await pilot.poll()
    return made.id


def copilot(manager: Manager, token: str, *words: str) -> int:
    return main(["--url", manager.url, "--token", token, "credit", *words])


async def test_an_operator_sees_whose_credit_it_is(
    manager: Manager, earned: str, operator: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code = await asyncio.to_thread(
        copilot, manager, operator, "show", "--by", "user", "--output", "json"
    )
    (group,) = json.loads(capsys.readouterr().out)
    assert (code, group["group"], group["receipts"]) == (0, "user=4", 1)


async def test_an_experiment_sees_its_own_without_labels(
    manager: Manager, earned: str, experiment: str, stranger: str
) -> None:
    async with Client(manager.url, experiment) as client:
        (row,) = [row async for row in client.credit.by_enrolment()]
    assert (row.enrolment, row.experiment, row.label, row.receipts) == (earned, "demo", "", 1)
    async with Client(manager.url, stranger) as client:
        assert [row async for row in client.credit.by_enrolment()] == []


async def test_an_export_is_safe_to_open(
    manager: Manager, earned: str, operator: str, tmp_path: Path
) -> None:
    target = tmp_path / "credit.csv"
    assert await asyncio.to_thread(copilot, manager, operator, "export", "--file", str(target)) == 0
    (row,) = csv.DictReader(io.StringIO(target.read_text()))
    assert (row["enrolment"], row["label"]) == (earned, f"'{LABEL}")
    assert (row["user"], row["host"], row["team"], row["receipts"]) == ("4", "17", "", "1")
    assert [path.name for path in tmp_path.glob("credit*")] == ["credit.csv"]


async def test_an_export_for_programs_keeps_the_label_as_it_is(
    manager: Manager, earned: str, operator: str, capsys: pytest.CaptureFixture[str]
) -> None:
    await asyncio.to_thread(copilot, manager, operator, "export", "--format", "json")
    (row,) = json.loads(capsys.readouterr().out)
    assert list(row) == [
        "enrolment", "label", "host", "user", "team", "experiment", "granted", "cpu_seconds",
        "receipts", "first_accepted_at", "last_accepted_at",
    ]  # fmt: skip
    assert row["label"] == LABEL


async def test_a_span_of_time_is_respected(
    manager: Manager, earned: str, operator: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for since, count in (("1h", 1), ("2200-01-01", 0)):
        await asyncio.to_thread(
            copilot, manager, operator, "show", "--since", since, "--output", "json"
        )
        assert len(json.loads(capsys.readouterr().out)) == count


async def test_a_span_that_ends_before_it_begins_is_refused(
    manager: Manager, operator: str, capsys: pytest.CaptureFixture[str]
) -> None:
    span = ("--since", "2026-03-01", "--until", "2026-02-01")
    assert await asyncio.to_thread(copilot, manager, operator, "show", *span) == 1
    assert "--since 2026-03-01 00:00 is not before --until 2026-02-01" in capsys.readouterr().err


async def test_a_file_that_cannot_be_written_is_named_as_asked_for(
    manager: Manager, operator: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = str(tmp_path / "nowhere" / "x.csv")
    assert await asyncio.to_thread(copilot, manager, operator, "export", "--file", target) == 1
    assert f"{target} cannot be written: No such file or directory" in capsys.readouterr().err


@pytest.mark.parametrize("query", ["cursor=x", "since=2026-01-01T00:00", "limit=501", "by=user"])
async def test_a_wrong_query_is_named(
    http: aiohttp.ClientSession, operator: str, query: str
) -> None:
    headers = {"Authorization": f"Bearer {operator}"}
    async with http.get(f"/api/v1/credit/enrolments?{query}", headers=headers) as reply:
        assert reply.status in {400, 422}
        assert query.partition("=")[0] in await reply.text()
