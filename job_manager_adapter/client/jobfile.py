"""Job files (TOML): what a user writes, and the job specs that come of it."""

import difflib
import itertools
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, StringConstraints, ValidationError, model_validator
from pydantic_core import ErrorDetails

from copilot_agent.protocol.base import Bytes, Sha256, Strict, Url
from copilot_agent.protocol.errors import CopilotError, ErrorCode, FieldError
from copilot_agent.protocol.job import (
    FileName,
    InputFile,
    JobSpec,
    Limits,
    OutputFile,
    Requirements,
    VariableName,
)
from copilot_agent.protocol.words import dotted, in_words
from job_manager_adapter.client.files import hash_file

MAX_JOBS = 100_000
Value = str | int | float
_ARRAY = re.compile(r"^(\d+)-(\d+)(?::(\d+))?$")


class JobFileInput(Strict):
    """A local file (`path`, relative to the job file) or a `url` with its hash and size."""

    path: Annotated[str, StringConstraints(min_length=1, max_length=4096)] | None = None
    url: Url | None = None
    name: FileName | None = None
    """How the payload sees it; by default the last part of path or URL."""
    sha256: Sha256 | None = None
    size: Bytes | None = None
    unpack: bool = False

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.path is None) == (self.url is None):
            raise ValueError("give either `path` or `url`")
        if self.url is not None and (self.sha256 is None or self.size is None):
            raise ValueError("a `url` needs its `sha256` and `size`")
        return self


class JobFile(Strict):
    """A job spec with local inputs, and the two ways of making many jobs of it."""

    job: dict[str, Any]
    """Every field of `JobSpec` but inputs."""
    inputs: tuple[JobFileInput, ...] = ()
    array: Annotated[str, StringConstraints(pattern=_ARRAY.pattern)] | None = None
    """`1-100` or `0-90:10`: one job for each number, which replaces `{array}`."""
    sweep: Annotated[dict[VariableName, tuple[Value, ...]], Field(max_length=8)] = {}
    """One job for each combination; `{name}` is replaced in command, environment, name, labels."""


@dataclass(frozen=True)
class Submission:
    """Specs ready to submit, and the local files that must be uploaded first (by SHA-256)."""

    specs: tuple[JobSpec, ...]
    uploads: Mapping[str, Path] = field(default_factory=dict)


_FIELDS = sorted(
    {
        name
        for model in (JobSpec, Requirements, Limits, OutputFile, JobFileInput, JobFile)
        for name in model.model_fields
    }
    - {"job"}
)


def read_job_file(path: Path) -> JobFile:
    """Raises CopilotError naming the line or the field."""
    try:
        data = tomllib.loads(path.read_text())
    except OSError as error:
        raise CopilotError(
            f"{path} cannot be read: {error.strerror}", code=ErrorCode.INVALID_REQUEST
        ) from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise CopilotError(
            f"{path} is not valid TOML: {error}", code=ErrorCode.INVALID_REQUEST
        ) from error
    extra = {key: data.pop(key) for key in ("inputs", "array", "sweep") if key in data}
    return build_job_file(data, **extra)


def build_job_file(job: dict[str, Any], **extra: Any) -> JobFile:
    try:
        return JobFile.model_validate({"job": job, **extra})
    except ValidationError as error:
        raise invalid("job file", error) from error


def expand(file: JobFile, directory: Path) -> Submission:
    """Hash the local inputs below `directory` and make one spec for each array/sweep value.

    Raises CopilotError naming the field that is wrong.
    """
    uploads: dict[str, Path] = {}
    inputs = [_resolve(given, directory, uploads) for given in file.inputs]
    specs = tuple(_spec(file.job, inputs, values) for values in combinations(file))
    return Submission(specs, uploads)


def combinations(file: JobFile) -> Iterator[dict[str, str]]:
    """The values of each job's variables, in the order in which the jobs are submitted."""
    axes: dict[str, tuple[Value, ...] | range] = dict(file.sweep)
    if file.array is not None:
        axes["array"] = _range(file.array)
    total = 1
    for axis in axes.values():
        total *= len(axis)
    if not 1 <= total <= MAX_JOBS:
        raise CopilotError(
            f"array and sweep make {total} jobs, 1 to {MAX_JOBS} are possible",
            code=ErrorCode.TOO_LARGE,
        )
    for combination in itertools.product(*axes.values()):
        yield {name: str(value) for name, value in zip(axes, combination, strict=True)}


def _range(text: str) -> range:
    match = _ARRAY.match(text)
    if match is None:
        raise CopilotError(f"array: {text!r} is no range", remedy="write it as 1-100 or 0-90:10")
    first, last, step = int(match[1]), int(match[2]), int(match[3] or 1)
    if step < 1 or last < first or last > 10**12:
        raise CopilotError(f"array: {text!r} is empty or absurd", remedy="write it as 1-100")
    return range(first, last + 1, step)


def _resolve(given: JobFileInput, directory: Path, uploads: dict[str, Path]) -> InputFile:
    if given.url is not None and given.sha256 is not None and given.size is not None:
        name = given.name or given.url.rsplit("/", 1)[-1]
        return _input(name, given.sha256, given.size, given)
    path = directory / (given.path or "")
    if not path.is_file():
        raise CopilotError(f"inputs: {path} is no file", code=ErrorCode.INVALID_REQUEST)
    sha256, size = hash_file(path)
    if given.sha256 not in (None, sha256):
        raise CopilotError(
            f"inputs: {path} has SHA-256 {sha256}, not {given.sha256}", code=ErrorCode.HASH_MISMATCH
        )
    uploads[sha256] = path
    return _input(given.name or path.name, sha256, size, given)


def _input(name: str, sha256: str, size: int, given: JobFileInput) -> InputFile:
    try:
        return InputFile(name=name, sha256=sha256, size=size, url=given.url, unpack=given.unpack)
    except ValidationError as error:
        raise invalid("inputs", error) from error


def _spec(job: dict[str, Any], inputs: list[InputFile], values: dict[str, str]) -> JobSpec:
    try:
        return JobSpec.model_validate({**_substitute(job, values), "inputs": inputs})
    except ValidationError as error:
        raise invalid("job", error) from error


def _substitute(value: Any, values: dict[str, str]) -> Any:
    """Replace `{name}` of known variables only, so that other braces stay what they are."""
    if isinstance(value, str):
        for name, text in values.items():
            value = value.replace("{" + name + "}", text)
        return value
    if isinstance(value, dict):
        return {key: _substitute(item, values) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_substitute(item, values) for item in value]
    return value


def invalid(what: str, error: ValidationError) -> CopilotError:
    """A CopilotError that names each refused field."""
    fields = tuple(
        FieldError(field=dotted(item["loc"]) or what, message=_words(item))
        for item in error.errors()[:20]
    )
    return CopilotError(
        f"{what} is not valid",
        remedy="`copilot job submit --help` shows flags and a job file",
        code=ErrorCode.INVALID_REQUEST,
        errors=fields,
    )


def _words(item: ErrorDetails) -> str:
    near = difflib.get_close_matches(str(item["loc"][-1]), _FIELDS, n=1) if item["loc"] else []
    words = in_words(item)[:1000]
    return f"{words}; {near[0]}?" if near and item["type"] == "extra_forbidden" else words
