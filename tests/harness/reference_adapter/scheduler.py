"""A scheduler in one JSON file: jobs, their states, who claimed them."""

import json
from pathlib import Path
from typing import Any

from copilot_agent.protocol.job import JobSpec
from job_manager_adapter.adapters.base import Adapter

Jobs = dict[str, dict[str, Any]]


class FileScheduler:
    """Its users' side; see `job_manager_adapter.adapters.testing.Scheduler`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        if not path.exists():
            self.write({})

    def read(self) -> Jobs:
        jobs: Jobs = json.loads(self.path.read_text())
        return jobs

    def write(self, jobs: Jobs) -> None:
        partial = self.path.with_suffix(".partial")
        partial.write_text(json.dumps(jobs))
        partial.replace(self.path)

    async def put(self, spec: JobSpec) -> str:
        jobs = self.read()
        upstream_id = f"ref-{len(jobs) + 1}"
        jobs[upstream_id] = {"spec": spec.model_dump(mode="json"), "state": "waiting"}
        self.write(jobs)
        return upstream_id

    async def state(self, upstream_id: str) -> str:
        return str(self.read()[upstream_id]["state"])

    async def take_back(self, upstream_id: str) -> None:
        jobs = self.read()
        jobs[upstream_id]["taken_back"] = True
        self.write(jobs)

    def break_down(self) -> None:
        self.path.rename(self.path.with_suffix(".away"))

    def recover(self) -> None:
        self.path.with_suffix(".away").rename(self.path)

    def another(self) -> Adapter:
        from tests.harness.reference_adapter.adapter import ReferenceAdapter

        return ReferenceAdapter("contract", {"path": str(self.path)})
