"""The receipts that the launcher keeps: one JSON object a line, durable before they are answered.

They are kept as they came. Whoever has the manager's public key can verify them.
"""

import contextlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from pydantic import ValidationError

from copilot_agent.protocol.receipt import Receipt

MOST_BYTES = 256 << 20
"""About 300,000 receipts. A guest that invents more does not fill the disk."""


class ReceiptsFullError(Exception):
    """The file has reached its bound."""


class ReceiptFile:
    def __init__(self, path: Path, most_bytes: int = MOST_BYTES) -> None:
        self._path = path
        self._most_bytes = most_bytes

    def load(self) -> Iterator[Receipt]:
        """All whole receipts, one by one; a line that a power cut has torn is left out."""
        if not self._path.exists():
            return
        with self._path.open("rb") as file:
            for line in file:
                with contextlib.suppress(ValidationError):
                    yield Receipt.model_validate_json(line)

    def append(self, receipts: Iterable[Receipt]) -> None:
        """Returns when they are on the disk; raises `ReceiptsFullError` or `OSError`."""
        text = "".join(receipt.model_dump_json() + "\n" for receipt in receipts)
        with self._path.open("ab") as file:
            if file.tell() + len(text) > self._most_bytes:
                raise ReceiptsFullError(f"{self._path} has reached {self._most_bytes >> 20} MiB")
            if file.tell() and not self._ends_with_newline():
                text = "\n" + text
            file.write(text.encode())
            file.flush()
            os.fsync(file.fileno())

    def _ends_with_newline(self) -> bool:
        with self._path.open("rb") as file:
            file.seek(-1, os.SEEK_END)
            return file.read(1) == b"\n"
