"""Submitting jobs and waiting for what becomes of them, in tests with real programs."""

from dataclasses import dataclass

from copilot_agent.protocol.ids import JobId
from copilot_agent.protocol.job import JobSpec, JobState, Outcome
from job_manager_adapter.client import Client
from job_manager_adapter.views import JobView
from tests.harness import programs


@dataclass
class Jobs:
    client: Client

    async def submit(self, *command: str, **fields: object) -> JobId:
        """Small needs unless `fields` say otherwise."""
        data = {"experiment": programs.EXPERIMENT, "command": command, **fields}
        data.setdefault("requirements", {"memory_mib": 64, "disk_mib": 64})
        reply = await self.client.jobs.submit([JobSpec.model_validate(data)])
        return reply.jobs[0]

    async def ended(self, job: JobId, seconds: float = 30.0) -> JobView:
        async def final() -> bool:
            return (await self.client.jobs.show(job)).state.final

        await programs.eventually(final, seconds, f"the end of {job}")
        return await self.client.jobs.show(job)

    async def reached(self, job: JobId, state: str, seconds: float = 20.0) -> JobView:
        async def there() -> bool:
            return (await self.client.jobs.show(job)).state == state

        await programs.eventually(there, seconds, f"{job} {state}")
        return await self.client.jobs.show(job)


def succeeded_once(view: JobView) -> None:
    outcomes = [attempt.outcome for attempt in view.attempts]
    assert view.state is JobState.SUCCEEDED, view.message
    assert outcomes.count(Outcome.SUCCEEDED) == 1
