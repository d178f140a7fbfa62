"""The jobs of a cell, and what they leave where an observer can see it."""

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

from copilot_agent.protocol.ids import JobId
from copilot_agent.protocol.job import InputFile, JobSpec
from job_manager_adapter.client import Client
from job_manager_adapter.client.http import ApiError, UnreachableError
from tests.faults.steps import INPUT, RESULT
from tests.harness import programs
from tests.harness.reference_adapter import FileScheduler

SCHEDULED = "scheduled"
"""The experiment whose jobs come from a scheduler of its own."""
INPUT_BYTES = 1 << 20
RESULT_BYTES = 1 << 20
SCRIPT = """
say() { echo "$COPILOT_JOB $COPILOT_ATTEMPT $1 $$" >>"$log"; }
log=$1 go=$2 size=$3
say start
until [ -e "$go" ]; do sleep 0.05; done
{ echo "$COPILOT_JOB $COPILOT_ATTEMPT"; head -c "$size" /dev/zero; } >result
say end
"""
"""Says when it begins and ends, waits for a file, writes who made the result."""


@dataclass(frozen=True)
class Line:
    """Of the log that payloads write."""

    job: str
    attempt: int
    word: str
    pid: int


@dataclass
class Ledger:
    """What the experiment knows by itself."""

    directory: Path
    acknowledged: list[JobId] = field(default_factory=list)
    """Submissions that were answered."""
    subject: str = ""
    """The job at whose steps the fault strikes."""
    upstream: str = ""
    """The job that the experiment's own scheduler has, by its own name."""
    keys: int = 0

    @property
    def log(self) -> Path:
        return self.directory / "payloads.log"

    @property
    def go(self) -> Path:
        return self.directory / "go"

    def lines(self) -> list[Line]:
        text = self.log.read_text() if self.log.exists() else ""
        found = [line.split() for line in text.splitlines()]
        return [Line(job, int(attempt), word, int(pid)) for job, attempt, word, pid in found]

    def specification(self, experiment: str = programs.EXPERIMENT, **more: object) -> JobSpec:
        """A job that does not wait, unless `more` says otherwise."""
        go, size = more.pop("go", "/dev/null"), more.pop("size", 100)
        data = {
            "experiment": experiment,
            "command": ("/bin/sh", "-c", SCRIPT, "x", str(self.log), str(go), str(size)),
            "outputs": [{"name": RESULT}],
            "requirements": {"memory_mib": 64, "disk_mib": 16},
            **more,
        }
        return JobSpec.model_validate(data)

    async def subject_with_input(self, client: Client, *, waits: bool) -> JobId:
        """With an input and a result large enough to be cut in half."""
        path = self.directory / INPUT
        path.write_bytes(bytes(range(256)) * (INPUT_BYTES // 256))
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        await client.files.upload(path, sha256)
        file = InputFile(name=INPUT, sha256=sha256, size=INPUT_BYTES)
        go = self.go if waits else "/dev/null"
        spec = self.specification(inputs=[file.model_dump()], go=go, size=RESULT_BYTES)
        self.subject = await self.submit(client, spec)
        return self.subject

    async def submit(self, client: Client, spec: JobSpec) -> JobId:
        """Tries with one key until it is answered."""
        self.keys += 1
        key = f"faults-{self.keys}"

        async def tried() -> bool:
            try:
                reply = await client.jobs.submit([spec], idempotency_key=key)
            except (ApiError, UnreachableError):
                return False
            self.acknowledged.append(reply.jobs[0])
            return True

        await programs.eventually(tried, 60, "an answer to a submission")
        return self.acknowledged[-1]

    async def schedule(self, scheduler: FileScheduler) -> None:
        """While no manager runs: scheduler and manager write the same file."""
        self.upstream = await scheduler.put(self.specification(SCHEDULED))
