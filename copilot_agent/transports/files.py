"""Files by signed URL: streamed, resumed where they stopped; formats in docs/protocol.md."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import BinaryIO, NoReturn

import aiohttp

from copilot_agent.blocks import Incoming, hash_file, keep_freed_memory, store_body
from copilot_agent.payload.threads import in_thread
from copilot_agent.protocol.errors import ErrorCode
from copilot_agent.transports.base import FileMoveError, Moved
from copilot_agent.transports.connections import CONNECT_SECONDS, RefusedError, refusal
from copilot_agent.transports.enrolment import describe

CHUNK = 1 << 20
SILENCE_SECONDS = 60.0
MAX_REDIRECTS = 5
MAX_ROUNDS = 1000
"""Of one upload: a server may take it in parts."""

_PATIENT = aiohttp.ClientTimeout(
    total=None, sock_connect=CONNECT_SECONDS, sock_read=SILENCE_SECONDS
)
_RETRYABLE = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 507})


class HttpFileMover:
    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session

    async def download(
        self, url: str, target: Path, *, offset: int, max_bytes: int, progress: Moved | None = None
    ) -> str:
        headers = {"Range": f"bytes={offset}-"} if offset else {}
        earlier = await in_thread(partial(hash_file, target)) if offset else hashlib.sha256()
        try:
            async with self._session.get(
                url,
                headers=headers,
                timeout=_PATIENT,
                max_redirects=MAX_REDIRECTS,
            ) as response:
                start = await _start(response, offset)
                digest = earlier if start else hashlib.sha256()
                body = _bounded(response, start, max_bytes, progress)
                return await _receive(body, target, start, max_bytes, digest)
        except RefusedError as error:
            if error.problem.status == 416:
                await _start_over(target, "the server has no such range")
            raise _move_error("download", error) from error
        except (aiohttp.ClientError, TimeoutError, ConnectionError) as error:
            raise FileMoveError(f"download: {describe(error)}", retryable=True) from error

    async def upload(
        self, url: str, source: Path, *, sha256: str, size: int, progress: Moved | None = None
    ) -> None:
        try:
            offset = await self._offset(url)
            for _ in range(MAX_ROUNDS):
                if offset is None:
                    return
                offset = await self._put(url, source, offset, size, sha256, progress)
        except RefusedError as error:
            raise _move_error("upload", error) from error
        except (aiohttp.ClientError, TimeoutError, ConnectionError) as error:
            raise FileMoveError(f"upload: {describe(error)}", retryable=True) from error
        raise FileMoveError("upload: the server never has enough", retryable=False)

    async def _offset(self, url: str) -> int | None:
        """How much the server has already; None: all of it. Unknown methods mean nothing."""
        async with self._session.head(url, allow_redirects=False) as response:
            if response.status in (403, 410):
                raise await self._reason(url, response)
            if response.status != 200:
                return 0
            if response.headers.get("Upload-Complete") == "1":
                return 0  # the PUT confirms size and hash, and costs nothing
            return _number(response, "Upload-Offset")

    async def _reason(self, url: str, response: aiohttp.ClientResponse) -> RefusedError:
        """A reply to HEAD has no body; an empty PUT says why."""
        del response
        async with self._session.put(
            url, data=b"", headers={"Upload-Offset": "0", "Upload-Length": "0"}
        ) as answer:
            return await refusal(answer)

    async def _put(
        self, url: str, source: Path, offset: int, size: int, sha256: str, progress: Moved | None
    ) -> int | None:
        """The byte to go on from; None when it is complete."""
        headers = {
            "Upload-Offset": str(offset),
            "Upload-Length": str(size),
            "Upload-Sha256": sha256,
            "Content-Length": str(size - offset),
            "Content-Type": "application/octet-stream",
        }
        with source.open("rb") as file:  # here, because a body that is cut is not closed
            body = _send(file, offset, size, progress)
            async with self._session.put(
                url, data=body, headers=headers, timeout=_PATIENT, allow_redirects=False
            ) as response:
                return await _stored(response)


async def _stored(response: aiohttp.ClientResponse) -> int | None:
    """The byte to go on from; None when it is complete. Raises RefusedError."""
    if response.status in (200, 201):
        return None
    if response.status == 204:
        return _number(response, "Upload-Offset")
    error = await refusal(response)
    if error.problem.code == ErrorCode.OFFSET_MISMATCH:
        return _number(response, "Upload-Offset")
    raise error


async def _send(
    file: BinaryIO, offset: int, size: int, progress: Moved | None
) -> AsyncIterator[bytes]:
    """Exactly the bytes from `offset` to `size`; a file that shrank breaks the request."""
    keep_freed_memory()
    file.seek(offset)
    left = size - offset
    while left > 0:
        chunk = await asyncio.to_thread(file.read, min(CHUNK, left))
        if not chunk:
            raise FileMoveError(f"upload: {file.name} became shorter", retryable=False)
        left -= len(chunk)
        yield chunk
        if progress is not None:
            progress(len(chunk))


async def _start(response: aiohttp.ClientResponse, offset: int) -> int:
    """The byte at which the body begins. Raises RefusedError."""
    if response.status == 206:
        begins = response.headers.get("Content-Range", "").removeprefix("bytes ").split("-")[0]
        if begins != str(offset):
            raise FileMoveError("download: the server sent another range", retryable=True)
        return offset
    if response.status != 200:
        raise await refusal(response)
    return 0


async def _receive(
    body: AsyncIterator[bytes], target: Path, start: int, size: int, digest: "hashlib._Hash"
) -> str:
    """The SHA-256 of the whole file then."""
    file = Incoming(target, start, size, digest)
    try:
        await store_body(body, start, file.append, (aiohttp.ClientError,))
    finally:
        file.close()
    return file.digest.hexdigest()


async def _bounded(
    response: aiohttp.ClientResponse, size: int, most: int, progress: Moved | None
) -> AsyncIterator[bytes]:
    """The body; `size` bytes of the file are here already. Raises FileMoveError beyond `most`."""
    async for data in response.content.iter_any():
        size += len(data)
        if size > most:
            raise FileMoveError(f"download: more than {most} bytes", retryable=False)
        yield data
        if progress is not None:
            progress(len(data))


async def _start_over(target: Path, why: str) -> NoReturn:
    target.unlink(missing_ok=True)
    raise FileMoveError(f"download: {why}", retryable=True)


def _number(response: aiohttp.ClientResponse, name: str) -> int:
    try:
        value = int(response.headers[name])
    except (KeyError, ValueError) as error:
        raise FileMoveError(f"upload: the server sent no {name}", retryable=True) from error
    if value < 0:
        raise FileMoveError(f"upload: the server sent {name} {value}", retryable=False)
    return value


def _move_error(what: str, error: RefusedError) -> FileMoveError:
    problem = error.problem
    expired = problem.code == ErrorCode.LINK_EXPIRED
    again = problem.status in _RETRYABLE or problem.code == ErrorCode.HASH_MISMATCH
    return FileMoveError(f"{what}: {error}", retryable=again or expired, link_expired=expired)
