"""Waiting for jobs: what somebody is told who waits for nothing."""

import asyncio
from datetime import UTC, datetime
from typing import cast

import pytest

from copilot_agent.protocol.ids import JobId
from copilot_agent.protocol.job import JobState
from job_manager_adapter.cli import wait
from job_manager_adapter.client import Client
from job_manager_adapter.views import JobView

JOB = "j-01m83d2mtjecnwwa4kfa"


class Manager:
    """Answers `jobs.show` with one state after the other, the last for ever."""

    def __init__(self, *states: JobState) -> None:
        self.jobs = self
        self.states = list(states)

    async def show(self, job: JobId) -> JobView:
        state = self.states.pop(0) if len(self.states) > 1 else self.states[0]
        now = datetime.now(UTC)
        return JobView(
            id=job,
            batch="b-01m83d2mtjecnwwa4kfa",
            experiment="demo",
            name="job",
            state=state,
            attempt=0 if state is JobState.WAITING else 1,
            max_attempts=3,
            attempts_charged=0,
            submitted_at=now,
            changed_at=now,
        )


def waited(monkeypatch: pytest.MonkeyPatch, *states: JobState) -> list[JobView]:
    monkeypatch.setattr(wait, "PERIOD", 0)
    manager = cast(Client, Manager(*states))
    return asyncio.run(wait.wait_for(manager, [JOB], plain=True))


@pytest.mark.parametrize(("looks", "hinted"), [(wait.HINT_ROUNDS, 1), (2, 0)])
def test_hint_where_nothing_starts(
    looks: int, hinted: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ended = waited(monkeypatch, *[JobState.WAITING] * looks, JobState.SUCCEEDED)
    assert [view.state for view in ended] == [JobState.SUCCEEDED]
    assert capsys.readouterr().err.count(f"→ copilot job explain {JOB}") == hinted


def test_failed_jobs_are_named_with_the_next_step(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert [view.id for view in wait.unsuccessful(waited(monkeypatch, JobState.FAILED))] == [JOB]
    assert f"copilot job logs {JOB}" in capsys.readouterr().err
