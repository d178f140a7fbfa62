"""Files in and out: who may move which, and the links that let pilots do it."""

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from copilot_agent.protocol.errors import CopilotError, ErrorCode, FieldError
from copilot_agent.protocol.frames import InputLink
from copilot_agent.protocol.job import STDERR, STDOUT, InputFile, JobSpec, Output
from job_manager_adapter.files.blobs import BlobStore
from job_manager_adapter.files.links import READ, WRITE, LinkSigner
from job_manager_adapter.files.outputs import OutputIndex
from job_manager_adapter.files.uploads import Target, Uploads
from job_manager_adapter.services.links import OutputPlace
from job_manager_adapter.views import UploadView

MIB = 1 << 20
LINK_SECONDS = 3600.0
EMPTY_SHA256 = hashlib.sha256(b"").hexdigest()


@dataclass(frozen=True)
class OutputTarget:
    """What a signed output link is for."""

    experiment: str
    job: str
    attempt: int
    name: str
    max_bytes: int

    @property
    def key(self) -> str:
        return f"output {self.job} {self.attempt} {self.name}"


class FileService:
    """The manager's own file store. An owner is an experiment's name, "" the operators.

    `base_url` may be set after the server knows its port.
    """

    def __init__(
        self,
        root: Path,
        signer: LinkSigner,
        *,
        base_url: str = "",
        floor_bytes: int = 0,
        max_file_bytes: int = 1 << 40,
    ) -> None:
        self.base_url = base_url
        self.floor_bytes = floor_bytes
        self._signer = signer
        self._max_file_bytes = max_file_bytes
        self._blobs = BlobStore(root)
        self._uploads = Uploads(root, self._blobs, floor_bytes)
        self._outputs = OutputIndex(root)

    # Links for pilots

    def inputs(self, job: str, spec: JobSpec, now: float) -> tuple[InputLink, ...]:  # noqa: ARG002 - other stores may want it
        """Where a pilot gets the job's inputs; those with a URL of their own keep it."""
        return tuple(self._input_link(file, now) for file in spec.inputs)

    def outputs(self, job: str, attempt: int, spec: JobSpec, now: float) -> list[OutputPlace]:
        """Where a pilot puts the declared outputs and both logs."""
        wanted = [(file.name, file.optional, spec.limits.output_mib) for file in spec.outputs]
        wanted += [(name, False, spec.limits.log_mib + 1) for name in (STDOUT, STDERR)]
        root, until = f"/files/v1/outputs/{job}/{attempt}/", now + LINK_SECONDS
        sign, experiment = self._signer.sign, spec.experiment
        return [
            OutputPlace(
                name,
                self.base_url
                + sign(WRITE, root + name, until, max_bytes=mib * MIB, experiment=experiment),
                mib * MIB,
                optional,
            )
            for name, optional, mib in wanted
        ]

    def check_link(self, kind: str, path: str, query: dict[str, str]) -> None:
        """Raises `CopilotError` with `link_invalid` or `link_expired`."""
        self._signer.check(kind, path, query, time.time())

    async def outputs_present(self, job: str, attempt: int, outputs: Sequence[Output]) -> list[str]:
        """Names of outputs that are not here, or with another hash or size than said.

        An empty one need not have been uploaded.
        """
        stored = [output for output in outputs if not is_empty(output)]
        if not stored:
            return []
        return await asyncio.to_thread(self._missing_outputs, job, attempt, stored)

    async def inputs_present(self, experiment: str, spec: JobSpec) -> list[FieldError]:
        """What is wrong with the inputs that the job expects in the store."""
        if all(file.url for file in spec.inputs):
            return []
        return await asyncio.to_thread(self._missing_inputs, experiment, spec)

    async def discard(self, job: str, attempt: int) -> None:
        """Forgets an attempt's outputs; the blobs go with the next clean-up."""
        await asyncio.to_thread(self._outputs.discard, job, attempt)

    # Downloads

    def blob_path(self, sha256: str, owner: str | None = None) -> Path:
        """The file to send. With `owner`, only if it may read it. Raises not_found."""
        if owner is not None and not self._readable(owner, sha256):
            raise _no_such_file(sha256)
        if self._blobs.size(sha256) is None:
            raise _no_such_file(sha256)
        return self._blobs.path(sha256)

    def stored_outputs(self, job: str, attempt: int) -> list[Output]:
        return self._outputs.all(job, attempt)

    def output(self, job: str, attempt: int, name: str) -> tuple[Output, Path]:
        """One stored output and its file. Raises not_found."""
        output = self._outputs.get(job, attempt, name)
        if output is None:
            raise CopilotError(
                f"job {job} has no output {name!r} of attempt {attempt}",
                remedy="`copilot job show` lists the outputs that exist",
                code=ErrorCode.NOT_FOUND,
            )
        return output, self.blob_path(output.sha256)

    def tail(self, job: str, attempt: int, name: str, size: int) -> str | None:
        """The last `size` bytes of a stored log as text, `None` if there is no such output."""
        output = self._outputs.get(job, attempt, name)
        if output is None or self._blobs.size(output.sha256) is None:
            return None
        with self._blobs.path(output.sha256).open("rb") as file:
            file.seek(max(0, output.size - size))
            return file.read(size).decode("utf-8", "replace")

    # Uploads

    def output_state(self, target: OutputTarget) -> UploadView:
        """How far an output's upload is."""
        done = self._outputs.get(target.job, target.attempt, target.name)
        if done:
            return UploadView(sha256=done.sha256, size=done.size, offset=done.size, complete=True)
        offset = self._uploads.offset(target.key)
        return UploadView(sha256="0" * 64, size=offset, offset=offset, complete=False)

    async def put_output(
        self,
        target: OutputTarget,
        offset: int,
        length: int,
        sha256: str,
        body: AsyncIterator[bytes],
    ) -> int:
        """Stores (a part of) an output; returns how many bytes are here now."""
        _check_size(length, min(target.max_bytes, self._max_file_bytes))
        done = self._outputs.get(target.job, target.attempt, target.name)
        if done:
            _check_repeated(done, sha256, target.name)
            return done.size
        here = await self._uploads.receive(Target(target.key, sha256, length), offset, body)
        if here == length:
            output = Output(name=target.name, sha256=sha256, size=length)
            await asyncio.to_thread(self._keep_output, target, output)
        return here

    def file_state(self, owner: str, sha256: str) -> UploadView:
        """How far the owner's own upload of this file is. Raises not_found before its start."""
        size = self._blobs.size(sha256)
        if size is not None and self._readable(owner, sha256):
            return UploadView(sha256=sha256, size=size, offset=size, complete=True)
        offset = self._uploads.offset(_file_key(owner, sha256))
        if not offset:
            raise _no_such_file(sha256)
        return UploadView(sha256=sha256, size=offset, offset=offset, complete=False)

    async def put_file(
        self, owner: str, sha256: str, offset: int, length: int, body: AsyncIterator[bytes]
    ) -> int:
        """Stores (a part of) a user's file; returns how many bytes are here now.

        Who has no right to a blob yet must bring all of it, so a hash alone opens nothing.
        """
        _check_size(length, self._max_file_bytes)
        if self._blobs.size(sha256) == length and self._readable(owner, sha256):
            self._blobs.touch(sha256)
            return length
        target = Target(_file_key(owner, sha256), sha256, length)
        here = await self._uploads.receive(target, offset, body)
        if here == length:
            await asyncio.to_thread(self._blobs.mark, owner, sha256)
        return here

    # Care

    def free_bytes(self) -> int:
        return self._blobs.free_bytes()

    async def clean(
        self, *, blob_days: float, output_days: float, in_use: Callable[[], Awaitable[set[str]]]
    ) -> int:
        """Removes old half files, old outputs and unreferenced blobs; returns bytes set free.

        `in_use` names the inputs of jobs that may still run; it is asked only if need be.
        """

        def prepare() -> set[str]:
            self._uploads.clean()
            self._outputs.clean(output_days)
            stale = self._blobs.stale(blob_days)
            return stale - self._outputs.hashes() if stale else stale

        if not (candidates := await asyncio.to_thread(prepare)):
            return 0
        candidates -= await in_use()

        def remove() -> int:
            still = candidates & self._blobs.stale(blob_days)
            return sum(map(self._blobs.remove, still))

        return await asyncio.to_thread(remove)

    def _input_link(self, file: InputFile, now: float) -> InputLink:
        url = file.url
        if url is None:
            self._blobs.touch(file.sha256)
            path = f"/files/v1/inputs/{file.sha256}"
            url = self.base_url + self._signer.sign(READ, path, now + LINK_SECONDS)
        return InputLink.model_construct(
            name=file.name, url=url, sha256=file.sha256, size=file.size, unpack=file.unpack
        )

    def _missing_outputs(self, job: str, attempt: int, outputs: Sequence[Output]) -> list[str]:
        here = {output.name: output for output in self._outputs.all(job, attempt)}
        return [output.name for output in outputs if here.get(output.name) != output]

    def _missing_inputs(self, experiment: str, spec: JobSpec) -> list[FieldError]:
        errors = []
        for number, file in enumerate(spec.inputs):
            if file.url is not None:
                continue
            where, size = f"inputs[{number}]", self._blobs.size(file.sha256)
            if size is None or not self._readable(experiment, file.sha256):
                message = f"no such file in the store: PUT it to /api/v1/files/{file.sha256} first"
                errors.append(FieldError(field=f"{where}.sha256", message=message))
            elif size != file.size:
                message = f"the stored file has {size} bytes, not {file.size}: correct the size"
                errors.append(FieldError(field=f"{where}.size", message=message))
            else:
                self._blobs.touch(file.sha256)
        return errors

    def _readable(self, owner: str, sha256: str) -> bool:
        """Operators read everything; what they brought, all experiments may use."""
        return not owner or self._blobs.owned(owner, sha256) or self._blobs.owned("", sha256)

    def _keep_output(self, target: OutputTarget, output: Output) -> None:
        self._blobs.mark(target.experiment, output.sha256)
        self._outputs.put(target.job, target.attempt, output)


def is_empty(output: Output) -> bool:
    """Whether it is a file without content, which everybody has."""
    return output.size == 0 and output.sha256 == EMPTY_SHA256


def _file_key(owner: str, sha256: str) -> str:
    return f"file {owner} {sha256}"


def _no_such_file(sha256: str) -> CopilotError:
    return CopilotError(
        f"no file {sha256} is here for you",
        remedy=f"upload it: PUT /api/v1/files/{sha256}",
        code=ErrorCode.NOT_FOUND,
    )


def _check_size(length: int, most: int) -> None:
    if length > most:
        raise CopilotError(
            f"the file has {length} bytes, at most {most} are allowed",
            remedy="raise limits.output_mib of the job, or write less",
            code=ErrorCode.TOO_LARGE,
        )


def _check_repeated(done: Output, sha256: str, name: str) -> None:
    if done.sha256 != sha256:
        raise CopilotError(
            f"output {name!r} of this attempt is complete, with other content",
            remedy="an output is written once; a new attempt gets links of its own",
            code=ErrorCode.CONFLICT,
        )
