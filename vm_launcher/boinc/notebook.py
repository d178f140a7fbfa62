"""What a task remembers from one start to the next: a small file in the slot."""

import logging
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from vm_launcher.core.task_progress import Progress
from vm_launcher.state import write_durably

log = logging.getLogger("vm_launcher")

_MOST_BYTES = 4096
_MOST_COUNT = 1 << 40
_MOST_SECONDS = 1e12
_Count = Annotated[int, Field(ge=0, le=_MOST_COUNT)]
_Seconds = Annotated[float, Field(ge=0, le=_MOST_SECONDS, allow_inf_nan=False)]


class _Page(BaseModel):
    model_config = ConfigDict(extra="ignore")

    version: int = 1
    running_seconds: _Seconds = 0.0
    idle_since: _Seconds | None = None
    jobs_succeeded: _Count = 0
    jobs_failed: _Count = 0
    receipts: _Count = 0
    trickled_seconds: _Seconds = 0.0
    saved_cpu_seconds: _Seconds = 0.0
    finish_soon: bool = False


class Notebook:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._written = b""

    def read(self) -> Progress:
        """A new task's if there is none, or a damaged one: the receipts are kept elsewhere."""
        try:
            with self._path.open("rb") as file:
                page = _Page.model_validate_json(file.read(_MOST_BYTES))
        except (OSError, ValidationError):
            page = _Page()
        return Progress(**page.model_dump(exclude={"version"}))

    def write(self, progress: Progress) -> None:
        """Durable when it returns, unless the disk is full: then it is tried again the next time.

        Nothing is written if nothing has changed.
        """
        fields = {name: _bounded(value) for name, value in vars(progress).items()}
        page = _Page.model_validate(fields).model_dump_json().encode()
        if page == self._written:
            return
        try:
            write_durably(self._path, page)
        except OSError as error:
            log.warning("the task's progress cannot be written: %s", error.strerror)
        else:
            self._written = page


def _bounded(value: float | None) -> float | None:
    """A guest may count its jobs as it likes, and must not end the task by that."""
    if value is None:
        return None
    return min(value, _MOST_COUNT if isinstance(value, int) else _MOST_SECONDS)
