"""Moving files between this computer and the manager's store."""

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import aiohttp

from copilot_agent.protocol.errors import CopilotError, ErrorCode
from copilot_agent.protocol.job import JobState
from job_manager_adapter.client.http import ApiError, Http, UnreachableError
from job_manager_adapter.views import JobView

CHUNK = 256 * 1024
Progress = Callable[[int], None]


def hash_file(path: Path) -> tuple[str, int]:
    """SHA-256 and size of a file."""
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
            size += len(chunk)
    return digest.hexdigest(), size


class Files:
    """`client.files`."""

    def __init__(self, http: Http) -> None:
        self._http = http

    async def upload(self, path: Path, sha256: str, progress: Progress = lambda _: None) -> None:
        """Store a file under its hash; goes on where an earlier try was cut, skips what is there.

        `progress` is told the number of bytes that are safe. Raises ApiError, UnreachableError.
        """
        size = path.stat().st_size
        for _ in range(20):
            offset, complete = await self._stored(sha256)
            progress(offset)
            if complete:
                return
            try:
                await self._put(path, sha256, size, offset, progress)
            except ApiError as error:
                if error.code is not ErrorCode.OFFSET_MISMATCH:
                    raise
            except UnreachableError:
                await asyncio.sleep(0.5)
        raise CopilotError(f"{path.name}: the upload does not get on", remedy="try again later")

    async def _stored(self, sha256: str) -> tuple[int, bool]:
        try:
            async with self._http.open("HEAD", f"api/v1/files/{sha256}", repeat=True) as reply:
                headers = reply.headers
                return int(headers["Upload-Offset"]), headers.get("Upload-Complete") == "1"
        except ApiError as error:
            if error.problem.status == 404:
                return 0, False
            raise

    async def _put(
        self, path: Path, sha256: str, size: int, offset: int, progress: Progress
    ) -> None:
        headers = {
            "Upload-Offset": str(offset),
            "Upload-Length": str(size),
            "Content-Type": "application/octet-stream",
        }
        body = _read_from(path, offset, progress)
        async with self._http.open(
            "PUT", f"api/v1/files/{sha256}", data=body, headers=headers
        ) as reply:
            await reply.read()

    async def fetch_outputs(self, job: JobView, directory: Path) -> list[Path]:
        """Download the outputs of `job` (as `jobs.show` gives it) into `directory/job-id/`."""
        root = directory / job.id
        return [
            await self.fetch(job.id, output.name, output.sha256, root / output.name)
            for output in job.outputs
        ]

    async def fetch(self, job: str, name: str, sha256: str, target: Path) -> Path:
        """Download one output, checked against its hash, resumed after a cut."""
        await asyncio.to_thread(target.parent.mkdir, parents=True, exist_ok=True)
        if target.is_file() and (await asyncio.to_thread(hash_file, target))[0] == sha256:
            return target
        part = target.with_name(target.name + ".part")
        for tries_left in reversed(range(5)):
            try:
                await self._download(f"api/v1/jobs/{job}/outputs/{name}", part)
                break
            except (aiohttp.ClientError, UnreachableError):
                if not tries_left:
                    raise
        if (await asyncio.to_thread(hash_file, part))[0] != sha256:
            part.unlink()
            raise CopilotError(f"{name} of {job} arrived damaged", remedy="fetch it again")
        part.replace(target)
        return target

    async def _download(self, path: str, part: Path) -> None:
        have = part.stat().st_size if part.exists() else 0
        headers = {"Range": f"bytes={have}-"} if have else {}
        try:
            async with self._http.open("GET", path, repeat=True, headers=headers) as reply:
                with part.open("ab" if reply.status == 206 else "wb") as file:
                    async for chunk in reply.content.iter_chunked(CHUNK):
                        file.write(chunk)
        except ApiError as error:
            if error.problem.status != 416:
                raise

    async def download_input(self, sha256: str, target: Path) -> None:
        await self._download(f"api/v1/files/{sha256}", target)


async def _read_from(path: Path, offset: int, progress: Progress) -> AsyncIterator[bytes]:
    with path.open("rb") as file:
        file.seek(offset, os.SEEK_SET)
        while chunk := await asyncio.to_thread(file.read, CHUNK):
            yield chunk
            progress(file.tell())


def outputs_expected(job: JobView) -> bool:
    """Whether fetching makes sense: only an ended job has outputs."""
    return job.state in (JobState.SUCCEEDED, JobState.FAILED)
