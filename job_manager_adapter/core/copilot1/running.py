"""A job's specification in the original's words.

The original pastes command, arguments and environment into a shell script. Here they are quoted, so
that they mean what the specification says. What has no words there (a program of the system,
inputs in directories, from elsewhere or to be unpacked) is said by a script that comes as one more
input.
"""

import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain

from pydantic import ValidationError

from copilot_agent.protocol.copilot1.errors import refusal_of
from copilot_agent.protocol.copilot1.job_commands import Job, RunJob
from copilot_agent.protocol.copilot1.job_data import JobData, job_data_text
from copilot_agent.protocol.job import InputFile, JobSpec

SCRIPT = "_copilot_start_.sh"
STAGE_IN_NOTE = "_copilot_stage_in_"
"""A file that the script leaves where an input could not be had."""
PACKAGES, VALIDATION = "COPILOT1_PACKAGES", "COPILOT1_VALIDATION_SCRIPT"
"""Variables of a job's environment that are fields of their own here."""
_FAIL = f'fail() {{ echo "$1" >{STAGE_IN_NOTE}; echo "$1" >&2; exit 96; }}'
_CONTROLS = {chr(code) for code in (*range(0x20), 0x7F)} - {"\t", "\n"}


@dataclass(frozen=True)
class Place:
    """Where a job's files are, and what it is called there."""

    job_id: str
    chirp_address: str
    input_dir: str


@dataclass(frozen=True)
class Running:
    run: RunJob
    files: Mapping[str, str] = field(default_factory=dict)
    """What has to lie in the input directory: name → SHA-256."""
    script: str = ""
    """What has to lie there as `SCRIPT`, if anything."""


def running(spec: JobSpec, place: Place, now: float) -> Running:
    """Raises StanzaError for what cannot be said, such as a package's name with a blank."""
    try:
        return _running(spec, place, now)
    except ValidationError as error:
        raise refusal_of(error) from error


def _running(spec: JobSpec, place: Place, now: float) -> Running:
    plain = _is_plain(spec)
    inputs = {name: file for name, file in _local_names(spec, plain).items() if file.url is None}
    names = tuple(inputs) if plain else (*inputs, SCRIPT)
    job = Job(
        id=place.job_id,
        chirp_url=place.chirp_address,
        input_dir=place.input_dir,
        input_files=names,
        command=spec.command[0].removeprefix("./") if plain else SCRIPT,
        arguments=shlex.join(spec.command[1:]) if plain else "",
        environment=_exports(spec) if plain else "",
        packages=spec.environment.get(PACKAGES, ""),
        validation_script=spec.environment.get(VALIDATION) or None,
    )
    started = job_data_text(JobData({"startedAt": str(int(now))}))
    hashes = {name: file.sha256 for name, file in inputs.items()}
    return Running(RunJob(job=job, job_data=started), hashes, "" if plain else _script(spec))


def _is_plain(spec: JobSpec) -> bool:
    """Whether the original's own fields can say it: a program among flat inputs."""
    names = {file.name for file in spec.inputs}
    simple = all("/" not in file.name and not (file.url or file.unpack) for file in spec.inputs)
    program, texts = spec.command[0], (*spec.command, *chain(*spec.environment.items()), *names)
    sayable = sum(map(len, texts)) < 16_000 and not any(_CONTROLS & set(text) for text in texts)
    return simple and sayable and program.startswith("./") and program[2:] in names


def _local_names(spec: JobSpec, plain: bool) -> dict[str, InputFile]:
    """By the name in the input directory, which has no directories."""
    if plain:
        return {file.name: file for file in spec.inputs}
    return {f"_input_{number}_": file for number, file in enumerate(spec.inputs)}


def _exports(spec: JobSpec) -> str:
    pairs = [
        f"{name}={shlex.quote(value)}"
        for name, value in spec.environment.items()
        if name not in (PACKAGES, VALIDATION)
    ]
    return f"export {' '.join(pairs)}" if pairs else ""


def _script(spec: JobSpec) -> str:
    lines = [
        "#!/bin/sh",
        "# Starts a job as its specification says; written by its manager.",
        _FAIL,
    ]
    for local, file in _local_names(spec, plain=False).items():
        lines += _staged(local, file)
    lines.append(_exports(spec))
    program = spec.command[0]
    if "/" in program and not program.startswith("/"):
        lines.append(f"chmod a+x {shlex.quote(program)} 2>/dev/null")
    lines.append(f"exec {shlex.join(spec.command)}")
    return "".join(f"{line}\n" for line in lines if line)


def _staged(local: str, file: InputFile) -> Iterator[str]:
    """Brings one input to its place. Its name needs no quotes: there are no such signs in it."""
    if "/" in file.name:
        yield f"mkdir -p {file.name.rpartition('/')[0]}"
    if file.url is not None:
        url = shlex.quote(file.url)
        yield f"curl -fsSL -o {local} {url} || wget -q -O {local} {url} || fail 'no {file.name}'"
        yield (
            f"echo '{file.sha256}  {local}' | sha256sum -c - >/dev/null"
            f" || fail 'another {file.name} than expected'"
        )
    if not file.unpack:
        yield f"mv {local} {file.name} || fail 'no {file.name}'"
        return
    yield f"mkdir {file.name}"
    yield (
        f"tar -xf {local} -C {file.name} 2>/dev/null || unzip -q {local} -d {file.name} 2>/dev/null"
        f" || python3 -m zipfile -e {local} {file.name} || fail 'cannot unpack {file.name}'"
    )
    yield f"rm {local}"
