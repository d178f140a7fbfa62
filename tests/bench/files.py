"""One large file each way: experiment to manager to pilot, and back."""

import asyncio
import json
import os
import sys
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import aiohttp

from copilot_agent.protocol.frames import Offer
from copilot_agent.protocol.job import JobSpec, Output
from tests.bench import files_floor
from tests.bench.cutting_proxy import cutting_proxy
from tests.bench.files_floor import Floor
from tests.bench.frame import Frame
from tests.bench.processes import cpu_seconds, forget_peak, rss_bytes
from tests.bench.results import Result, at_least, at_most
from tests.harness import programs
from tests.integration.manager.pilot import FakePilot, held, success

NAME = "files"
DESCRIPTION = "a 2 GiB file each way: speed, memory, resumed after a cut"
SECONDS = 300.0

MIB, GIB = 1 << 20, 1 << 30
BLOCK = MIB
RATE = 300.0
"""MiB/s, each way."""
GROWTH = 32.0
"""MiB that a process may grow by while a file of any size passes."""
CHUNK_KIB = 1024.0
"""What is sent again after a cut must be less than that."""


@dataclass(frozen=True)
class File:
    path: Path
    sha256: str
    size: int


@dataclass(frozen=True)
class Leg:
    """What one way cost."""

    seconds: float
    cpu_seconds: float
    manager_cpu_seconds: float
    growth_mib: float
    manager_growth_mib: float


def make_file(path: Path, size: int) -> File:
    """No two blocks of it are the same."""
    digest, noise = sha256(), os.urandom(BLOCK - 8)
    with path.open("wb") as file:
        for number in range(size // BLOCK):
            block = number.to_bytes(8, "big") + noise
            digest.update(block)
            file.write(block)
    return File(path, digest.hexdigest(), size)


def job_spec(file: File) -> JobSpec:
    return JobSpec.model_validate(
        {
            "experiment": programs.EXPERIMENT,
            "command": ["/bin/true"],
            "requirements": {"memory_mib": 64, "disk_mib": 64},
            "limits": {"output_mib": file.size // MIB + 1},
            "inputs": [{"name": "data", "sha256": file.sha256, "size": file.size}],
            "outputs": [{"name": "data"}],
        }
    )


class Ways:
    """The four ways of a file through one manager. `url` is its own or that of a proxy."""

    def __init__(self, manager: programs.ManagerProgram, root: Path, file: File) -> None:
        self.url = manager.url
        self._manager = manager
        self._root = root
        self._file = file
        self._spec = job_spec(file)
        self._offer: Offer | None = None

    async def bring(self) -> Leg:
        """Experiment to manager."""
        return await self._move("client_upload", path=str(self._file.path))

    async def take(self, pilot: FakePilot) -> Leg:
        """Manager to pilot: the job's input."""
        async with programs.client(self._manager) as client:
            await client.jobs.submit([self._spec])
        while not (frame := await pilot.poll()) or not frame.offers:
            pass
        (self._offer,) = frame.offers
        link = self._offer.inputs[0].model_dump(mode="json")
        return await self._move("stage_in", link=self._through(link), path=str(self._root / "in"))

    async def give(self, pilot: FakePilot) -> Leg:
        """Pilot to manager: the job's output."""
        link = self._known.outputs[0].model_dump(mode="json")
        leg = await self._move("stage_out", link=self._through(link), path=str(self._file.path))
        output = Output(name="data", sha256=self._file.sha256, size=self._file.size)
        logs = [
            Output(name=f"std{n}.log", sha256=sha256().hexdigest(), size=0) for n in ("out", "err")
        ]
        report = success(self._known, (output, *logs))
        frame = await pilot.poll(held=held(self._known), reports=(report,))
        while frame is None or not frame.verdicts:
            frame = await pilot.poll(reports=(report,))
        if frame.verdicts[0].verdict != "accepted":
            raise RuntimeError(f"the report was not accepted: {frame.verdicts[0]}")
        return leg

    async def fetch(self) -> Leg:
        """Manager to experiment."""
        target = self._root / "fetched"
        leg = await self._move(
            "client_fetch", name="data", sha256=self._file.sha256, path=str(target)
        )
        target.unlink()
        return leg

    @property
    def _known(self) -> Offer:
        if self._offer is None:
            raise RuntimeError("no pilot has the job yet")
        return self._offer

    def _through(self, link: dict[str, Any]) -> dict[str, Any]:
        return {**link, "url": link["url"].replace(self._manager.url, self.url)}

    async def _move(self, move: str, **order: object) -> Leg:
        assert self._manager.process is not None
        pid = self._manager.process.pid
        before, used = rss_bytes(pid), cpu_seconds([pid])
        forget_peak(pid)
        job = self._offer.job if self._offer else ""
        common = {"url": self.url, "token": self._manager.token, "job": job}
        spec = self._spec.model_dump(mode="json")
        found = await _ordered({"move": move, **common, "spec": spec, **order})
        return Leg(
            seconds=found["seconds"],
            cpu_seconds=found["cpu_seconds"],
            manager_cpu_seconds=cpu_seconds([pid]) - used,
            growth_mib=found["growth_bytes"] / MIB,
            manager_growth_mib=(rss_bytes(pid, "VmHWM") - before) / MIB,
        )


async def _ordered(order: dict[str, object]) -> dict[str, float]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.bench.files_program"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        output, _ = await process.communicate(json.dumps(order).encode())
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        raise RuntimeError(f"{order['move']} failed with exit code {process.returncode}")
    found: dict[str, float] = json.loads(output)
    return found


async def run(frame: Frame) -> list[Result]:
    file = await asyncio.to_thread(make_file, frame.root / "data", frame.pick(2048, 4) * MIB)
    copy = frame.root / "copy"
    usual = await asyncio.to_thread(files_floor.through_the_cache, file.path, copy)
    least = await asyncio.to_thread(files_floor.past_the_cache, file.path, copy)
    frame.say(f"floors: {usual}, {least}")
    options = {"heartbeat_seconds": 5.0, "lease_seconds": 300.0}
    async with (
        programs.manager(frame.root / "manager", **options) as manager,
        aiohttp.ClientSession(manager.url) as http,
    ):
        pilot = FakePilot(http)
        await pilot.enrol((await manager.enrolment()).read_text())
        results = await speed(frame, manager, pilot, file, least)
        file.path.unlink()
        small = await asyncio.to_thread(make_file, frame.root / "data", frame.pick(256, 4) * MIB)
        return [floor_figure(usual, least), *results, *await cuts(frame, manager, pilot, small)]


async def speed(
    frame: Frame, manager: programs.ManagerProgram, pilot: FakePilot, file: File, least: Floor
) -> list[Result]:
    ways = Ways(manager, frame.root, file)
    legs = {
        "experiment_to_manager": await ways.bring(),
        "manager_to_pilot": await ways.take(pilot),
        "pilot_to_manager": await ways.give(pilot),
        "manager_to_experiment": await ways.fetch(),
    }
    results: list[Result] = []
    for name, leg in legs.items():
        frame.say(f"{name}: {leg}")
        results += figures(f"files.{name}", leg, file.size, least)
    growth = max(max(leg.growth_mib, leg.manager_growth_mib) for leg in legs.values())
    return [*results, Result("files.memory_growth", round(growth, 1), "MiB", at_most(GROWTH))]


def floor_figure(usual: Floor, least: Floor) -> Result:
    """What the disk does without us, in the usual way; beside it the way that costs least."""
    value, cpu_us = round(usual.mib_per_second, 1), round(usual.cpu_seconds_per_gib / 1024 * 1e6, 1)
    best = round(least.mib_per_second, 1)
    return Result("files.floor", value, "MiB/s", None, least.what, best, cpu_us)


def figures(name: str, leg: Leg, size: int, least: Floor) -> list[Result]:
    what = least.what
    gib, cpu = size / GIB, leg.cpu_seconds + leg.manager_cpu_seconds
    floor_cpu = (what, round(least.cpu_seconds_per_gib, 2))
    return [
        Result(
            name,
            round(size / MIB / leg.seconds, 1),
            "MiB/s",
            at_least(RATE),
            what,
            round(least.mib_per_second, 1),
            cpu_us=round(cpu / size * MIB * 1e6, 1),
        ),
        Result(
            f"{name}_manager", round(leg.manager_cpu_seconds / gib, 2), "s/GiB", None, *floor_cpu
        ),
        Result(f"{name}_other_end", round(leg.cpu_seconds / gib, 2), "s/GiB", None, *floor_cpu),
    ]


async def cuts(
    frame: Frame, manager: programs.ManagerProgram, pilot: FakePilot, file: File
) -> list[Result]:
    """Each way once more, cut in the middle by a proxy; the receivers check the hash."""
    ways, most = Ways(manager, frame.root, file), 0.0
    moves = (ways.bring, partial(ways.take, pilot), partial(ways.give, pilot), ways.fetch)
    for move in moves:
        async with cutting_proxy(manager.url, file.size // 2) as proxy:
            ways.url = proxy.url
            await move()
        if proxy.cuts != 1:
            raise RuntimeError(f"{proxy.cuts} cuts")
        again = max(proxy.up, proxy.down) - file.size
        frame.say(f"sent again after a cut, with all heads: {again} bytes")
        most = max(most, again / 1024)
    return [Result("files.sent_again_after_a_cut", round(most, 1), "KiB", at_most(CHUNK_KIB))]
