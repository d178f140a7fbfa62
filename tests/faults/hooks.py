"""The test's side of `hook/sitecustomize.py`: points inside a process where it stops itself."""

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

HOOK = Path(__file__).with_name("hook")
REPOSITORY = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Point:
    name: str
    module: str
    owner: str
    method: str
    when: str
    """before or after."""


STORES = "job_manager_adapter.store"
FINISH = (
    Point("finish-sqlite", f"{STORES}.sqlite", "SqliteStore", "finish", "before"),
    Point("finish-postgres", f"{STORES}.postgres", "PostgresStore", "finish", "before"),
)
ADAPTER = "tests.harness.reference_adapter.adapter"
TOLD = (Point("told", ADAPTER, "ReferenceAdapter", "finished", "after"),)
POINTS = (*FINISH, *TOLD)


class Hooks:
    """For one process; `directory` is its own."""

    def __init__(self, directory: Path, points: Iterable[Point]) -> None:
        self._directory = directory
        self._points = tuple(points)
        directory.mkdir(parents=True, exist_ok=True)

    @property
    def environment(self) -> dict[str, str]:
        """For the process, beside what it has anyway."""
        points = {one.name: (one.module, one.owner, one.method, one.when) for one in self._points}
        return {
            "PYTHONPATH": os.pathsep.join((str(HOOK), str(REPOSITORY))),
            "COPILOT_FAULT_DIRECTORY": str(self._directory),
            "COPILOT_FAULT_POINTS": json.dumps(points),
        }

    def arm(self, point: Point, text: str) -> None:
        """It fires at the next call with `text` among its arguments."""
        armed = self._directory / f"{point.name}.armed"
        part = armed.with_suffix(".part")
        part.write_text(text)
        part.replace(armed)

    def clear(self) -> None:
        """Of what is armed or reached."""
        for path in self._directory.iterdir():
            path.unlink()

    def reached(self, point: Point) -> bool:
        return (self._directory / f"{point.name}.reached").exists()
