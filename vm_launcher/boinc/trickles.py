"""Trickle messages: to the project (up) and from it (down), while the task still runs.

The client takes the slot's trickle_up.xml away when it is told that there is one. There is room for
one at a time, and one that comes too early overwrites the former. So they wait in a queue, and
each goes these steps, with its state on the disk before the next:

    queued → prepared (a part file) → booked (handed out) → renamed to trickle_up.xml → flagged

After a crash the two files tell how far it came: the part is there: rename it; trickle_up.xml is
there: flag it (again, which does no harm); neither: the client has it. So each arrives once.
"""

import contextlib
import math
import re
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from copilot_agent.protocol.errors import ErrorCode
from vm_launcher.boinc.errors import SlotError, TrickleError
from vm_launcher.boinc.files import read_bounded, replace_file, sync_directory, write_file

UP = "trickle_up.xml"
DOWN = "trickle_down_"

MOST_QUEUED = 64
MOST_BODY = 32 << 10
MOST_DOWN = 64 << 10
MOST_DOWN_AT_ONCE = 16

APART = 1.1
"""Seconds. The client names what it takes by the second: a second one would replace the first."""

AGAIN = 10.0
"""Seconds after which the client is told again of a file that it has not taken."""

_PART = "trickle_up.part"
_STATE = "copilot_trickles.json"
_MOST_STATE = MOST_QUEUED * MOST_BODY * 8
_VARIETY = r"^[A-Za-z0-9_.-]{1,200}$"
_BODY = re.compile(r"[^\x00-\x08\x0b-\x1f\x7f]*")


class Trickle(BaseModel):
    model_config = ConfigDict(frozen=True)

    variety: Annotated[str, Field(pattern=_VARIETY)]
    body: Annotated[str, Field(max_length=MOST_BODY)]

    def file(self) -> bytes:
        return f"<variety>{self.variety}</variety>\n{self.body}".encode()


class _State(BaseModel):
    queue: Annotated[tuple[Trickle, ...], Field(max_length=MOST_QUEUED)] = ()
    handed: bool = False
    """The first of the queue has been booked."""
    mark: Annotated[str, Field(max_length=1000)] = ""


class TricklesUp:
    """The queue of this slot; what an earlier episode left in it goes on.

    The owner calls `advance` often, and sends the flag when it says so.
    """

    def __init__(self, slot: Path) -> None:
        self._up = slot / UP
        self._part = slot / _PART
        self._file = slot / _STATE
        self._state = self._load()
        if not self._state.handed:
            self._part.unlink(missing_ok=True)  # prepared, not booked: it will be prepared again
        self._flag_from = -math.inf
        # an earlier episode's last one may have been taken a moment ago
        self._free_from: float | None = None if self._file.exists() else -math.inf

    @property
    def mark(self) -> str:
        """The last one that came with a trickle; written with it, or not at all."""
        return self._state.mark

    def __len__(self) -> int:
        return len(self._state.queue)

    def add(self, variety: str, body: str, mark: str | None = None) -> None:
        """On the disk when it returns; raises `TrickleError` if it does not fit."""
        if len(self) >= MOST_QUEUED:
            raise TrickleError(
                f"{MOST_QUEUED} trickle messages wait for the BOINC client already",
                remedy="try again when it has taken some",
            )
        try:
            trickle = Trickle(variety=variety, body=body)
        except ValidationError as error:
            raise TrickleError(f"no trickle message: {error.errors()[0]['msg']}") from None
        if not _BODY.fullmatch(body):
            raise TrickleError("no trickle message: control characters in its body")
        mark = self._state.mark if mark is None else mark
        try:
            self._keep(queue=(*self._state.queue, trickle), mark=mark)
        except OSError as error:
            raise TrickleError(
                f"a trickle message cannot be kept: {error.strerror}",
                remedy="make room on the disk of the BOINC client",
                code=ErrorCode.NO_SPACE,
            ) from None

    def advance(self, now: float) -> bool:
        """One step; True: send the flag now, and tell `flagged` if it could be sent.

        `now` in seconds of any clock. After an `OSError` the next call tries again.
        """
        if self._free_from is None:
            self._free_from = now + APART
        if self._state.handed:
            if self._part.exists():
                self._rename()
            if self._up.exists():
                return now >= self._flag_from
            self._keep(queue=self._state.queue[1:], handed=False)
            self._free_from = now + APART
        if self._state.queue and now >= self._free_from:
            self._flag_from = -math.inf
            self._hand()
            return True
        return False

    def flagged(self, now: float) -> None:
        self._flag_from = now + AGAIN

    def _hand(self) -> None:
        write_file(self._part, self._state.queue[0].file())
        self._keep(handed=True)
        self._rename()

    def _rename(self) -> None:
        self._part.replace(self._up)
        sync_directory(self._up.parent)

    def _keep(self, **changes: object) -> None:
        state = self._state.model_copy(update=changes)
        replace_file(self._file, state.model_dump_json().encode())
        self._state = state

    def _load(self) -> _State:
        try:
            return _State.model_validate_json(read_bounded(self._file, _MOST_STATE) or b"")
        except FileNotFoundError:
            return _State()
        except (OSError, ValidationError):
            raise SlotError(
                f"{self._file} cannot be read, so it is unknown what has been reported",
                remedy="abort this task in the BOINC manager",
            ) from None


class TricklesDown:
    """What the project sends to a running task: files that the client puts into the slot."""

    def __init__(self, slot: Path) -> None:
        self._slot = slot
        self._look = True  # an earlier episode may have left some

    def announced(self) -> None:
        self._look = True

    def take(self) -> list[str]:
        """In order; each is deleted before it is told, so that none is obeyed twice.

        What is too large or no plain file is deleted and not told.
        """
        if not self._look:
            return []
        paths = sorted(self._slot.glob(f"{DOWN}*"))
        self._look = len(paths) > MOST_DOWN_AT_ONCE
        told = (self._take(path) for path in paths[:MOST_DOWN_AT_ONCE])
        return [text for text in told if text is not None]

    def _take(self, path: Path) -> str | None:
        data = None
        with contextlib.suppress(OSError):
            data = read_bounded(path, MOST_DOWN)
        try:
            path.unlink()
        except OSError:
            return None
        return None if data is None else data.decode(errors="replace")
