"""What must outlive the agent's death: jobs of original managers, and when one was asked for."""

import json
import logging
import time
from pathlib import Path

from pydantic import ValidationError

from copilot_agent.core.copilot1.words import Assignment
from copilot_agent.spool import write_private

log = logging.getLogger(__name__)


class Assignments:
    """In a directory of this agent's own; an assignment is a file."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory / "assignments"
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._asked = directory / "asked.json"

    def kept(self) -> list[Assignment]:
        found = []
        for path in sorted(self._directory.glob("*.json")):
            try:
                found.append(Assignment.model_validate_json(path.read_bytes()))
            except ValidationError:
                log.error("%s is unreadable; its manager will not hear of this job", path)
                path.rename(path.with_suffix(".unreadable"))
        return found

    def keep(self, assignment: Assignment) -> None:
        """Raises OSError."""
        write_private(self._path(assignment.key), assignment.model_dump_json().encode())

    def drop(self, key: str) -> None:
        self._path(key).unlink(missing_ok=True)

    def _path(self, key: str) -> Path:
        return self._directory / f"{key}.json"

    # ----- the account's last request, by the wall clock, as it spans boots

    def asked(self) -> None:
        """Just now. Raises OSError."""
        write_private(self._asked, json.dumps({"at": time.time()}).encode())

    def seconds_since_asked(self) -> float:
        """Much, if nobody knows; none, if the clock was set back."""
        try:
            return max(0.0, time.time() - float(json.loads(self._asked.read_bytes())["at"]))
        except (OSError, ValueError, TypeError, KeyError):
            return 1e9
