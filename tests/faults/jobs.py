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
ANSWER_SECONDS = 60.0
SCRIPT = """
set -e
say() { echo "$COPILOT_JOB $COPILOT_ATTEMPT $1 $$" >>"$log"; }
log=$1 go=$2 size=$4
say start
if [ "$COPILOT_ATTEMPT" = 1 ]; then eval "$5" || true; else go=$3; fi
until [ -e "$go" ]; do sleep 0.05; done
{ echo "$COPILOT_JOB $COPILOT_ATTEMPT"; head -c "$size" /dev/zero; } >result
say end
"""
"""Says when it begins and ends, waits for a file, writes who made the result."""
NOWHERE = "/dev/null"
"""Exists in every VM: no log is written, and nobody is waited for."""


@dataclass(frozen=True)
class Line:
    """Of the log that payloads write."""

    job: str
    attempt: int
    word: str
    pid: int


@dataclass
class Ledger:
    """What the experiment knows by itself. In a VM its jobs can write no log here."""

    directory: Path
    in_a_vm: bool = False
    acknowledged: list[JobId] = field(default_factory=list)
    """Submissions that were answered."""
    upstream: list[str] = field(default_factory=list)
    """Jobs that the experiment's own scheduler has, by its own names."""
    keys: int = 0

    @property
    def log(self) -> Path:
        return self.directory / "payloads.log"

    @property
    def go(self) -> Path:
        """A subject's first attempt may wait for this file."""
        return self.directory / "go"

    @property
    def again(self) -> Path:
        """And its later ones for this."""
        return self.directory / "again"

    def lines(self) -> list[Line]:
        text = self.log.read_text() if self.log.exists() else ""
        found = [line.split() for line in text.splitlines()]
        return [Line(job, int(attempt), word, int(pid)) for job, attempt, word, pid in found]

    def specification(self, name: str = "bystander", first: str = "", **more: object) -> JobSpec:
        """A small job that does not wait; its first attempt runs the shell's words `first`."""
        go, again = more.pop("go", NOWHERE), more.pop("again", NOWHERE)
        log = NOWHERE if self.in_a_vm else self.log
        arguments = (log, go, again, more.pop("size", 100), first)
        words = ("/bin/sh", "-c", SCRIPT, "x", *map(str, arguments))
        data = {
            "experiment": programs.EXPERIMENT,
            "name": name,
            "command": words,
            "outputs": [{"name": RESULT}],
            "requirements": {"memory_mib": 64, "disk_mib": 16},
            **more,
        }
        return JobSpec.model_validate(data)

    async def subject(self, client: Client, name: str, *, waits: bool, first: str) -> JobId:
        """Submits one with an input and a result large enough to be cut in half.

        `waits`: its payload goes on when `go` is there; in a VM it needs no telling.
        """
        path = self.directory / f"{INPUT}-{name}"  # a pilot that has it would not fetch it again
        path.write_bytes(name.encode().ljust(32) * (INPUT_BYTES // 32))
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        await client.files.upload(path, sha256)
        file = InputFile(name=INPUT, sha256=sha256, size=INPUT_BYTES)
        more = {"inputs": [file.model_dump()], "size": RESULT_BYTES}
        if not self.in_a_vm:
            more |= {"go": self.go if waits else NOWHERE, "again": self.again}
        return await self.submit(client, self.specification(name, first, **more))

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

        await programs.eventually(tried, ANSWER_SECONDS, "an answer to a submission")
        return self.acknowledged[-1]

    async def schedule(self, scheduler: FileScheduler) -> str:
        """Gives a job to the scheduler; again if the manager's adapter wrote at the same moment."""
        spec = self.specification("scheduled", experiment=SCHEDULED)
        ident = await scheduler.put(spec)
        self.upstream.append(ident)
        return ident
