"""`python -m tests.bench.figures`: sizes, memory and times of one quiet machine, as JSON.

Boots two VMs one after the other, takes about two minutes, and wants the computer for itself.
"""

import asyncio
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from copilot_agent.protocol.job import JobSpec
from deploy.demo.processes import Process, call, program
from job_manager_adapter.client import Client
from tests.harness import programs
from vm_launcher.state import Status

IMAGE = Path(os.environ.get("COPILOT_CACHE", ".cache")).absolute() / "image"
MIB = 1 << 20


def memory(pid: int, field: str) -> float:
    """A memory figure of /proc/PID/status, in MiB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(field):
            return round(int(line.split()[1]) / 1024, 1)
    raise LookupError(field)


def pid(process: Process | None) -> int:
    if process is None:
        raise RuntimeError("not started")
    return process.pid


async def manager_and_agent(root: Path, figures: dict[str, Any]) -> None:
    async with programs.manager(root / "plain", heartbeat_seconds=5.0, lease_seconds=60.0) as one:
        await asyncio.sleep(3)  # idle is what is measured
        figures["manager_idle_rss_mib"] = memory(pid(one.process), "VmRSS")
        async with programs.agent(one) as agent, programs.client(one) as client:
            for _ in range(10):
                await through(client, "/bin/true")
            figures["agent_peak_rss_mib"] = memory(pid(agent.process), "VmHWM")


async def through(client: Client, *command: str) -> float:
    """Run one small job; returns when its payload was started (Unix time, the pilot's clock)."""
    spec = JobSpec.model_validate(
        {
            "experiment": programs.EXPERIMENT,
            "command": command,
            "requirements": {"memory_mib": 32, "disk_mib": 16},
        }
    )
    reply = await client.jobs.submit([spec])
    async for job in client.jobs.wait(reply.jobs, period=0.05):
        attempt = job.attempts[-1]
        if attempt.started_at is None:
            raise RuntimeError(f"{job.state}: {job.message}")
        return attempt.started_at.timestamp()
    raise AssertionError("unreachable")


def launcher_argv(manager: programs.ManagerProgram, secret: Path, state: Path) -> tuple[str, ...]:
    return (
        *(str(programs.TOOLS / "vm-launcher"), "run", "--manager", manager.url),
        *("--image", str(IMAGE), "--image-key", str(IMAGE / "image-key.pub")),
        *("--enrolment-file", str(secret), "--state", str(state)),
        *("--cpus", "2", "--memory", "512"),
    )


def status(state: Path) -> Status:
    try:
        return Status.model_validate_json((state / "status.json").read_bytes())
    except FileNotFoundError:
        return Status()


async def ask(state: Path, verb: str) -> None:
    await call((str(programs.TOOLS / "vm-launcher"), verb, "--state", str(state)))


async def machine(root: Path, figures: dict[str, Any]) -> None:
    async with programs.manager(root / "vm", heartbeat_seconds=5.0, lease_seconds=60.0) as one:
        secret, state = await one.enrolment(), root / "launcher"
        argv = launcher_argv(one, secret, state)
        async with programs.client(one) as client:
            for which in ("first", "warm"):
                await boot(root, client, argv, state, which, figures)
            await pauses(root, argv, state, figures)


async def boot(
    root: Path,
    client: Client,
    argv: tuple[str, ...],
    state: Path,
    which: str,
    figures: dict[str, Any],
) -> None:
    """`first`: the launcher unpacks the image; `warm`: it has been unpacked."""
    started = time.time()
    async with program("launcher", argv, root / f"launcher-{which}.log"):
        payload = await through(client, "/bin/true")
        now = status(state)
        figures[f"{which}_hello_seconds"] = now.vm_boot_seconds
        figures[f"{which}_ready_seconds"] = now.ready_seconds
        figures[f"{which}_payload_started_seconds"] = round(payload - started, 2)
        figures[f"{which}_vm_host_memory_mib"] = round(now.memory_bytes / MIB)
        figures[f"{which}_vm_cpu_seconds"] = now.cpu_seconds
        again = time.time()
        payload = await through(client, "/bin/true")
        figures[f"{which}_submit_to_start_in_vm_seconds"] = round(payload - again, 3)


async def pauses(root: Path, argv: tuple[str, ...], state: Path, figures: dict[str, Any]) -> None:
    async with program("launcher", argv, root / "launcher-pause.log") as launcher:
        await programs.eventually(lambda: status(state).guest_state == "idle", 120, "idle pilot")
        await ask(state, "pause")
        await programs.eventually(lambda: status(state).state == "paused", 20, "paused")
        figures["pause_ok_to_stopped_seconds"] = status(state).pause_seconds
        await ask(state, "resume")
        await programs.eventually(lambda: status(state).state == "running", 20, "resumed")
        await ask(state, "save")
        await ended(launcher)
        figures["save_seconds"] = status(state).save_seconds
    async with program("launcher", argv, root / "launcher-restore.log"):
        await programs.eventually(lambda: bool(status(state).restore_seconds), 60, "restored")
        figures["restore_seconds"] = status(state).restore_seconds


async def ended(process: Process) -> None:
    await programs.eventually(lambda: not process.running, 60, f"the end of {process.name}")


def image(figures: dict[str, Any]) -> None:
    layers = json.loads((IMAGE / "manifest.json").read_text())["layers"]
    for layer in layers:
        figures[f"image_{layer['role']}_mb"] = round(layer["size"] / 1e6, 2)
    figures["image_total_mb"] = round(sum(layer["size"] for layer in layers) / 1e6, 2)


async def main() -> int:
    figures: dict[str, Any] = {"load_average_before": os.getloadavg()[0]}
    image(figures)
    with tempfile.TemporaryDirectory(prefix="copilot-figures-") as name:
        await manager_and_agent(Path(name), figures)
        await machine(Path(name), figures)
    print(json.dumps(figures, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
