"""Tasks of the real BOINC client: how soon a VM runs, stands still and is gone, and what it takes.

Needs the image and the single file (`make bench` builds both). Each task runs a job, is suspended,
resumed, and aborted. `start` is what comes before QEMU's own start: from the client's start of the
launcher to the launcher's of QEMU. `suspend` begins when the launcher has taken the client's word
out of the shared memory; `abort` at the volunteer's order, so that the client's second is in it.
"""

import asyncio
import os
import statistics
import time
from dataclasses import dataclass, replace
from pathlib import Path

from deploy.demo.processes import call
from deploy.demo.task import start_to_vm_seconds
from tests.bench.frame import Frame
from tests.bench.processes import cpu_seconds, rss_bytes, tree
from tests.bench.results import Result, at_most
from tests.harness import programs
from tests.harness.boinc.tasks import Task
from tests.harness.boinc.world import VM, World, world

NAME = "boinc"
DESCRIPTION = "tasks of the real BOINC client: start, suspend, abort, memory"
SECONDS = 1200.0
TASKS = 7
MOST_START, MOST_SUSPEND, MOST_ABORT = 3.0, 1.5, 10.0
MOST_MIB, MOST_MB = 60.0, 25.0
SAMPLES = 10
LONG = ("/bin/sh", "-c", "while :; do :; done")
CACHE = Path(os.environ.get("COPILOT_CACHE", ".cache")).absolute()
LAUNCHER = CACHE / "launcher" / "vm-launcher"


@dataclass(frozen=True)
class Seen:
    """Of one task; seconds and MiB."""

    start: float
    start_cpu: float
    """Of the launcher, when QEMU starts."""
    hello: float
    suspend: float
    abort: float
    memory: float


async def run(frame: Frame) -> list[Result]:
    application = await _application(frame.root / "application")
    preferences = {"leave_apps_in_memory": 1}
    async with world(frame.root, application, settings=VM, preferences=preferences) as one:
        await one.submit(*LONG)
        seen = [await _task(frame, one) for _ in range(frame.pick(TASKS, 1))]
    return _results(seen, LAUNCHER.stat().st_size / 1e6)


async def _application(project: Path) -> Path:
    project.mkdir()
    (project / "config.xml").write_text("<boinc></boinc>\n")
    await call(
        (
            *(str(programs.TOOLS / "vm-launcher"), "boinc-project", str(project)),
            *("--launcher", str(LAUNCHER), "--image", str(CACHE / "image")),
            *("--manager", "http://127.0.0.1:9"),
        )
    )
    return project


async def _task(frame: Frame, one: World) -> Seen:
    (name,) = await one.work()
    await one.volunteer.project(one.project.url, "update")  # reports the one before
    task = await one.started(name, 90)
    start, start_cpu = await _started(one, task)
    status = await one.guest(task, "working")
    memory = await _memory(one, task)
    suspend = await _suspended(one, task)
    abort = await _aborted(one, task)
    seen = Seen(start, start_cpu, status.vm_boot_seconds or 0.0, suspend, abort, memory)
    frame.say(
        f"QEMU after {start:.2f} s ({start_cpu:.2f} s CPU), suspended in {suspend:.2f} s, "
        f"launcher {memory:.1f} MiB, nothing left {abort:.2f} s after the abort"
    )
    return seen


async def _started(one: World, task: Task) -> tuple[float, float]:
    """Seconds until QEMU started, and CPU seconds."""
    state = one.volunteer.slot(task) / "launcher"

    def seconds() -> float | None:
        return start_to_vm_seconds(task.pid, state)

    await programs.eventually(seconds, 30, "a VM")
    used, found = cpu_seconds([task.pid]), seconds()
    assert found is not None
    return found, used


async def _memory(one: World, task: Task) -> float:
    """The most that all processes of the task took, but QEMU, while its job runs."""
    most = 0
    for _ in range(SAMPLES):
        virtual_machines = one.hypervisors()
        mine = [pid for pid in tree(task.pid) if pid not in virtual_machines]
        most = max(most, sum(rss_bytes(pid) for pid in mine))
        await asyncio.sleep(0.2)
    return most / (1 << 20)


async def _suspended(one: World, task: Task) -> float:
    channels = one.volunteer.slot(task) / "boinc_mmap_file"

    def taken() -> bool:
        """The receiver clears the flag before the text and lets the text stand."""
        with channels.open("rb") as file:
            return file.read(11) == b"\0<suspend/>"

    await one.volunteer.order(task, "suspend")
    await programs.eventually(taken, 20, "the client's word")
    began = time.monotonic()
    await programs.eventually(lambda: one.status(task).state == "paused", 20, "a paused VM")
    seconds = time.monotonic() - began
    await one.volunteer.order(task, "resume")
    await programs.eventually(lambda: one.status(task).state == "running", 20, "a resumed VM")
    return seconds


async def _aborted(one: World, task: Task) -> float:
    began = time.monotonic()
    await one.volunteer.order(task, "abort")
    await programs.eventually(lambda: not one.volunteer.leftovers(), 60, "nothing left")
    seconds = time.monotonic() - began
    assert not one.hypervisors()
    await one.volunteer.task(task.name, lambda task: task.ready_to_report, "ready to report")
    return seconds


def _results(seen: list[Seen], file_mb: float) -> list[Result]:
    return [
        *_start(seen),
        *_pair("suspend", [each.suspend for each in seen], "s", MOST_SUSPEND),
        *_pair("abort", [each.abort for each in seen], "s", MOST_ABORT),
        *_pair("launcher_memory", [each.memory for each in seen], "MiB", MOST_MIB),
        Result(f"{NAME}.single_file", round(file_mb, 1), "MB", at_most(MOST_MB)),
    ]


def _start(seen: list[Seen]) -> list[Result]:
    """With what comes after it, which is QEMU's and the guest's own, and with its CPU time."""
    median, worst = _pair("start", [each.start for each in seen], "s", MOST_START)
    hello = statistics.median(each.hello for each in seen)
    used = 1e6 * statistics.median(each.start_cpu for each in seen)
    peer = "from QEMU's start to the guest's first word"
    return [replace(median, peer=peer, peer_value=round(hello, 2), cpu_us=round(used)), worst]


def _pair(what: str, values: list[float], unit: str, most: float) -> list[Result]:
    """The median, and the worst, which has to meet the target as well."""
    median, worst = round(statistics.median(values), 2), round(max(values), 2)
    return [
        Result(f"{NAME}.{what}", median, unit, at_most(most)),
        Result(f"{NAME}.{what}_worst", worst, unit, at_most(most)),
    ]
