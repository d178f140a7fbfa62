"""Measures how long an idle pilot takes from a job's submission to its payload's first breath.

A real manager and a real agent on loopback, no VM, one job at a time. Prints a JSON list of
objects with name, value and unit. As root, payloads get their own uid and namespaces.

    python -m tests.bench.start_latency [JOBS]
"""

import asyncio
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

from copilot_agent.protocol.job import JobSpec, JobState, Requirements
from job_manager_adapter.client import Client
from tests.harness import programs

WARM_UP = 3
MAX_JOBS = 1000
SPEC = JobSpec(
    experiment=programs.EXPERIMENT,
    command=("/bin/date", "+%s.%N"),
    requirements=Requirements(memory_mib=64, disk_mib=64),
)


async def latency(client: Client) -> float:
    """Seconds between the submission and the payload's own clock."""
    begin = time.time()
    (job,) = (await client.jobs.submit([SPEC])).jobs

    async def succeeded() -> bool:
        return (await client.jobs.show(job)).state is JobState.SUCCEEDED

    await programs.eventually(succeeded, 30, f"the end of {job}")
    return float((await client.jobs.logs(job)).text) - begin


def status(pid: int, field: str) -> float:
    """A figure in kB of a process's status, as MiB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    line = next(each for each in lines if each.startswith(f"{field}:"))
    return int(line.split()[1]) / 1024


async def measure(jobs: int) -> list[dict[str, object]]:
    options = ["--cores", "2", *(["--payload-user", "200000"] if os.geteuid() == 0 else [])]
    with tempfile.TemporaryDirectory(prefix="copilot-bench-") as folder:
        root = Path(folder)
        root.chmod(0o711)
        async with (
            programs.manager(root / "manager") as manager,
            programs.agent(manager, options=options) as agent,
            programs.client(manager) as client,
        ):
            (root / "manager").chmod(0o711)
            found = [await latency(client) for _ in range(WARM_UP + jobs)][WARM_UP:]
            assert agent.process is not None
            peak = status(agent.process.pid, "VmHWM")
            resident = status(agent.process.pid, "VmRSS")
    milliseconds = [1000 * each for each in found]
    deciles = statistics.quantiles(milliseconds, n=10, method="inclusive")
    return [
        {"name": "submit_to_start_p50", "value": round(deciles[4], 1), "unit": "ms"},
        {"name": "submit_to_start_p90", "value": round(deciles[8], 1), "unit": "ms"},
        {"name": "submit_to_start_best", "value": round(min(milliseconds), 1), "unit": "ms"},
        {"name": "agent_rss", "value": round(resident, 1), "unit": "MiB"},
        {"name": "agent_rss_peak", "value": round(peak, 1), "unit": "MiB"},
        {"name": "load_average", "value": round(os.getloadavg()[0], 2), "unit": "1"},
    ]


def main() -> int:
    jobs = min(int(sys.argv[1]) if len(sys.argv) > 1 else 30, MAX_JOBS)
    sys.stdout.write(json.dumps(asyncio.run(measure(jobs)), indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
