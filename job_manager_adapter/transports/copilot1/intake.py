"""Takes an original agent's archive in: its files become the attempt's outputs."""

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

from copilot_agent.blocks import hash_file, read_long
from copilot_agent.payload.archive import ArchiveError, Caps, unpack
from copilot_agent.protocol.errors import CopilotError, ErrorCode
from copilot_agent.protocol.job import STDERR, STDOUT, FailureClass, JobSpec, Output
from job_manager_adapter.core.copilot1.reporting import TakenIn
from job_manager_adapter.core.copilot1.running import STAGE_IN_NOTE
from job_manager_adapter.core.leases import Key
from job_manager_adapter.services.files import EMPTY_SHA256, FileService, OutputTarget
from job_manager_adapter.transports.copilot1.chirp import ChirpRoot

MIB = 1 << 20
LOGS = {"stdout": STDOUT, "stderr": STDERR}
"""What the original calls them, and we."""
_CUT = b"\n[... cut ...]\n"


class Intake:
    def __init__(self, files: FileService, chirp: ChirpRoot, scratch: Path) -> None:
        self._files = files
        self._chirp = chirp
        self._scratch = scratch
        self._turns = asyncio.Semaphore(4)

    async def take_in(self, job_id: str, key: Key, spec: JobSpec) -> TakenIn:
        """Raises OSError or CopilotError where it has to be tried again, as with a full disk."""
        async with self._turns:
            with tempfile.TemporaryDirectory(dir=self._scratch, prefix="copilot1-") as name:
                root = Path(name)
                try:
                    found = await asyncio.to_thread(self._unpack, job_id, spec, root)
                    problem = _stage_in_problem(root)
                except (ArchiveError, NotADirectoryError, IsADirectoryError) as error:
                    return await self._without_archive(key, spec, error)
                kept, troubles = await self._store(key, spec, found)
                if problem:
                    return TakenIn(kept, problem, FailureClass.STAGE_IN)
                return TakenIn(kept, "; ".join(troubles), FailureClass.PAYLOAD_LIMIT)

    async def _without_archive(self, key: Key, spec: JobSpec, error: Exception) -> TakenIn:
        logs, _ = await self._store(key, spec, dict.fromkeys(LOGS.values()))
        return TakenIn(logs, f"the archive with the outputs cannot be taken in: {error}")

    def _unpack(self, job_id: str, spec: JobSpec, root: Path) -> dict[str, Path | None]:
        """Names of outputs and where they lie now."""
        wanted = {file.name: file.name for file in spec.outputs} | {
            theirs: ours for theirs, ours in LOGS.items()
        }
        names = frozenset((*wanted, STAGE_IN_NOTE))
        with self._chirp.archive(job_id) as archive:
            # by its descriptor: what stands under the name may be another file by now
            opened = Path(f"/proc/self/fd/{archive.fileno()}")
            unpack(opened, root, _caps(spec), check=self._check_room, wanted=names)
        paths = {ours: root / theirs for theirs, ours in wanted.items()}
        here = {ours: path for ours, path in paths.items() if path.is_file()}
        if here.keys().isdisjoint(LOGS.values()):  # every agent's has them
            raise ArchiveError("there is neither stdout nor stderr in it")
        return {**dict.fromkeys(LOGS.values()), **here}

    def _check_room(self) -> None:
        if self._files.free_bytes() < self._files.floor_bytes:
            raise CopilotError("the manager's disk is nearly full", code=ErrorCode.NO_SPACE)

    async def _store(
        self, key: Key, spec: JobSpec, found: dict[str, Path | None]
    ) -> tuple[list[Output], list[str]]:
        """What is stored now, and what could not be."""
        await self._files.discard(*key)  # of a report that came to nothing
        kept, troubles = [], []
        left = spec.limits.output_mib * MIB
        for name, path in found.items():
            is_log = name in LOGS.values()
            if path is not None and is_log:
                await asyncio.to_thread(_cut, path, spec.limits.log_mib * MIB)
            size = path.stat().st_size if path else 0
            if not is_log and size > left:
                troubles.append(f"output {name} is beyond limits.output_mib")
                continue
            left -= 0 if is_log else size
            kept.append(await self._keep(key, spec, name, path))
        return kept, troubles

    async def _keep(self, key: Key, spec: JobSpec, name: str, path: Path | None) -> Output:
        size = path.stat().st_size if path else 0
        if path is None or not size:
            return Output(name=name, sha256=EMPTY_SHA256, size=0)
        sha256 = (await asyncio.to_thread(hash_file, path)).hexdigest()
        target = OutputTarget(spec.experiment, *key, name, size)
        here = self._files.output_state(target).offset
        try:
            await self._files.put_output(target, here, size, sha256, _bytes(path, here, size))
        except CopilotError as error:  # what is here of it was of another file
            if error.code is not ErrorCode.OFFSET_MISMATCH:
                raise
            await self._files.put_output(target, 0, size, sha256, _bytes(path, 0, size))
        return Output(name=name, sha256=sha256, size=size)


async def _bytes(path: Path, offset: int, size: int) -> AsyncIterator[bytes]:
    async for block in read_long(path, offset, size - offset):
        yield bytes(block)


def _caps(spec: JobSpec) -> Caps:
    """The whole directory is in the archive: also the inputs, and whatever the payload left."""
    inputs = sum(file.size for file in spec.inputs)
    mib = spec.requirements.disk_mib + spec.limits.output_mib + 2 * spec.limits.log_mib
    return Caps(bytes=2 * inputs + mib * MIB)


def _stage_in_problem(root: Path) -> str:
    path = root / STAGE_IN_NOTE
    return path.read_text("utf-8", "replace")[:500].strip() if path.is_file() else ""


def _cut(path: Path, most: int) -> None:
    """Keeps the first and the last half of a log that is too long."""
    size = path.stat().st_size
    if size <= most:
        return
    path.chmod(0o600)
    half = (most - len(_CUT)) // 2
    with path.open("r+b") as file:
        file.seek(size - half)
        tail = file.read(half)
        file.seek(half)
        file.write(_CUT + tail)
        file.truncate()


def scratch_of(data_dir: Path) -> Path:
    """This process' own; what it left there when it was killed is removed."""
    scratch = data_dir / "copilot1-scratch"
    scratch.mkdir(mode=0o700, parents=True, exist_ok=True)
    for entry in scratch.glob("copilot1-*"):
        shutil.rmtree(entry, ignore_errors=True)
    return scratch
