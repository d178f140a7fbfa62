"""Moving files between this computer and the manager's store."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import BinaryIO

import aiohttp

from copilot_agent import blocks
from copilot_agent.protocol.errors import CopilotError, ErrorCode
from copilot_agent.protocol.job import JobState
from job_manager_adapter.client.http import ApiError, Http, UnreachableError, backoff
from job_manager_adapter.views import JobView

CHUNK = 1 << 20
TRIES = 20
DOWNLOAD_TRIES = 5
Progress = Callable[[int], None]


def hash_file(path: Path) -> tuple[str, int]:
    """SHA-256 and size of a file."""
    return blocks.hash_file(path).hexdigest(), path.stat().st_size


class Files:
    """`client.files`."""

    def __init__(self, http: Http) -> None:
        self._http = http

    async def upload(self, path: Path, sha256: str, progress: Progress = lambda _: None) -> None:
        """Store a file under its hash; goes on where an earlier try was cut, skips what is there.

        `progress` is told the number of bytes that are safe. Raises ApiError, UnreachableError.
        """
        size = path.stat().st_size
        for tried in range(1, TRIES + 1):
            offset, complete = await self._stored(sha256)
            progress(offset)
            if complete:
                return
            if path.stat().st_size != size:
                raise CopilotError(f"{path} changed meanwhile", remedy="upload it again")
            try:
                await self._put(path, sha256, size, offset, progress)
            except ApiError as error:
                if error.code is not ErrorCode.OFFSET_MISMATCH:
                    raise
            except (aiohttp.ClientError, UnreachableError):
                await asyncio.sleep(backoff(tried))
        raise UnreachableError(
            f"the upload of {path.name} was cut {TRIES} times",
            remedy="try again later; it goes on where it stopped",
        )

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
            "Content-Length": str(size - offset),
            "Content-Type": "application/octet-stream",
        }
        with path.open("rb") as file:  # here, because a body that is cut is not closed
            body = _read_from(file, offset, size, progress)
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
        if await self._download_all(f"api/v1/jobs/{job}/outputs/{name}", part) != sha256:
            part.unlink()
            raise CopilotError(f"{name} of {job} arrived damaged", remedy="fetch it again")
        part.replace(target)
        return target

    async def _download_all(self, path: str, part: Path) -> str:
        """The SHA-256 of what is in `part` then. Raises ApiError, UnreachableError."""
        for tries_left in reversed(range(DOWNLOAD_TRIES)):
            try:
                return await self._download(path, part)
            except aiohttp.ClientError as error:
                if not tries_left:
                    raise UnreachableError(
                        f"the download was cut {DOWNLOAD_TRIES} times: {error}",
                        remedy="fetch it again later; it goes on where it stopped",
                    ) from error
            except UnreachableError:
                if not tries_left:
                    raise
        raise AssertionError("unreachable")

    async def _download(self, path: str, part: Path) -> str:
        digest, have = hashlib.sha256(), 0
        if part.exists():
            digest, have = await asyncio.to_thread(blocks.hash_file, part), part.stat().st_size
        headers = {"Range": f"bytes={have}-"} if have else {}
        try:
            async with self._http.open("GET", path, repeat=True, headers=headers) as reply:
                if reply.status != 206:
                    digest, have = hashlib.sha256(), 0
                return await _receive(reply, part, have, digest)
        except ApiError as error:
            if error.problem.status != 416:  # there is no more than we have
                raise
        return digest.hexdigest()


async def _receive(
    reply: aiohttp.ClientResponse, part: Path, have: int, digest: "hashlib._Hash"
) -> str:
    """The SHA-256 of what is in `part` then."""
    size = have + (reply.content_length or 0)
    file = blocks.Incoming(part, have, size, digest)
    try:
        body = reply.content.iter_any()
        await blocks.store_body(body, have, file.append, (aiohttp.ClientError,))
    finally:
        file.close()
    return file.digest.hexdigest()


async def _read_from(
    file: BinaryIO, offset: int, size: int, progress: Progress
) -> AsyncIterator[bytes]:
    """The bytes from `offset` to `size`; a file that shrank breaks the request."""
    blocks.keep_freed_memory()
    file.seek(offset)
    while offset < size:
        chunk = await asyncio.to_thread(file.read, min(CHUNK, size - offset))
        if not chunk:
            raise OSError(f"{file.name} became shorter")
        yield chunk
        offset += len(chunk)
        progress(offset)


def outputs_expected(job: JobView) -> bool:
    """Whether fetching makes sense: only an ended job has outputs."""
    return job.state in (JobState.SUCCEEDED, JobState.FAILED)
