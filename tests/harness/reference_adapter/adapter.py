"""The adapter: imports nothing of ours but adapters.base and the protocol."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from copilot_agent.protocol.job import JobSpec
from job_manager_adapter.adapters.base import (
    Finding,
    Packing,
    Result,
    Room,
    SourcedJob,
    UpstreamError,
)

_OPEN = ("claimed", "running")
_ENDS = {"succeeded", "failed", "cancelled"}


class ReferenceAdapter:
    """Options: `path` of the scheduler's file, `poll_seconds` (default 1)."""

    def __init__(self, experiment: str, options: Mapping[str, object]) -> None:
        known = {"path", "poll_seconds"}
        if unknown := set(options) - known:
            raise ValueError(f"unknown option {min(unknown)!r}; there are {sorted(known)}")
        if "path" not in options:
            raise ValueError("option 'path' is missing: the scheduler's file")
        self._experiment = experiment
        self._path = Path(str(options["path"]))
        self.poll_seconds: float | None = float(str(options.get("poll_seconds", 1)))

    async def start(self) -> None:
        self._read()

    async def close(self) -> None: ...

    async def fetch(self, room: Sequence[Room]) -> list[SourcedJob]:
        jobs, packing, fetched = self._read(), Packing(room), []
        for upstream_id, entry in jobs.items():
            spec = JobSpec.model_validate(entry["spec"])
            handed_over = entry["state"] == "claimed" and not entry.get("adopted")
            if handed_over and room:
                fetched.append(SourcedJob(upstream_id, spec))
            elif entry["state"] == "waiting" and packing.take(spec.requirements):
                entry["state"] = "claimed"
                fetched.append(SourcedJob(upstream_id, spec))
        self._write(jobs)
        return fetched

    async def adopted(self, upstream_ids: Sequence[str]) -> None:
        self._change(upstream_ids, adopted=True)

    async def started(self, upstream_id: str, host: str) -> None:
        jobs = self._read()
        if jobs[upstream_id]["state"] in _OPEN:
            jobs[upstream_id] |= {"state": "running", "host": host}
            self._write(jobs)

    async def renew(self, upstream_ids: Sequence[str]) -> None:
        jobs = self._read()
        for upstream_id in upstream_ids:
            jobs[upstream_id]["renewals"] = jobs[upstream_id].get("renewals", 0) + 1
        self._write(jobs)

    async def finished(self, upstream_id: str, result: Result) -> None:
        jobs = self._read()
        if jobs[upstream_id]["state"] not in _ENDS:
            outputs = [output.name for output in result.outputs]
            jobs[upstream_id] |= {"state": result.outcome.value, "outputs": outputs}
            self._write(jobs)

    async def cancelled(self) -> list[str]:
        return [
            upstream_id
            for upstream_id, entry in self._read().items()
            if entry.get("taken_back") and entry["state"] in _OPEN
        ]

    async def doctor(self) -> list[Finding]:
        subject = f"scheduler of {self._experiment}"
        try:
            count = len(self._read())
        except UpstreamError as error:
            return [Finding(subject, False, str(error), f"create {self._path}")]
        return [Finding(subject, True, f"{count} jobs")]

    def _change(self, upstream_ids: Sequence[str], **fields: object) -> None:
        jobs = self._read()
        for upstream_id in upstream_ids:
            jobs[upstream_id] |= fields
        self._write(jobs)

    def _read(self) -> dict[str, dict[str, Any]]:
        try:
            jobs: dict[str, dict[str, Any]] = json.loads(self._path.read_text())
        except OSError as error:
            raise UpstreamError(f"{self._path}: {error.strerror}") from error
        return jobs

    def _write(self, jobs: dict[str, dict[str, Any]]) -> None:
        partial = self._path.with_suffix(".partial")
        partial.write_text(json.dumps(jobs))
        partial.replace(self._path)
