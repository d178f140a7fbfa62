"""Which finished files are the outputs of which attempt."""

import contextlib
import hashlib
import json
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from copilot_agent.protocol.job import Output
from job_manager_adapter.files.durable import make_directory, private_directory, write_file

_DAY = 86400.0
_JOB = re.compile(r"j-[0-9a-z]{20}")


class OutputIndex:
    """`root/outputs/<job>/<attempt>/<sha256 of the name>.json`: no name ever becomes a path."""

    def __init__(self, root: Path) -> None:
        self._root = private_directory(root / "outputs")

    def get(self, job: str, attempt: int, name: str) -> Output | None:
        try:
            return Output.model_validate_json(self._path(job, attempt, name).read_bytes())
        except FileNotFoundError:
            return None

    def all(self, job: str, attempt: int) -> list[Output]:
        """Every output of an attempt, by name."""
        found = [_read(path) for path in self._directory(job, attempt).glob("*.json")]
        return sorted((output for output in found if output), key=lambda output: output.name)

    def put(self, job: str, attempt: int, output: Output) -> None:
        path = self._path(job, attempt, output.name)
        make_directory(path.parent)
        write_file(path, output.model_dump_json().encode())

    def discard(self, job: str, attempt: int) -> None:
        shutil.rmtree(self._directory(job, attempt), ignore_errors=True)

    def hashes(self) -> set[str]:
        """The hash of every output that is kept."""
        found = (_read(path) for path in self._root.glob("*/*/*.json"))
        return {output.sha256 for output in found if output}

    def clean(self, days: float) -> int:
        """Forgets attempts whose last output came more than `days` ago; returns how many."""
        deadline, count = time.time() - days * _DAY, 0
        for attempt in self._attempts():
            with contextlib.suppress(FileNotFoundError):
                if attempt.stat().st_mtime < deadline:
                    shutil.rmtree(attempt, ignore_errors=True)
                    count += 1
        return count

    def _attempts(self) -> Iterator[Path]:
        return (path for path in self._root.glob("*/*") if path.is_dir())

    def _directory(self, job: str, attempt: int) -> Path:
        if not _JOB.fullmatch(job):
            raise ValueError("not a job id")
        return self._root / job / str(int(attempt))

    def _path(self, job: str, attempt: int, name: str) -> Path:
        digest = hashlib.sha256(name.encode()).hexdigest()
        return self._directory(job, attempt) / f"{digest}.json"


def _read(path: Path) -> Output | None:
    with contextlib.suppress(FileNotFoundError):
        return Output.model_validate(json.loads(path.read_bytes()))
    return None
