"""The receipts that the launcher keeps: one JSON object a line, durable before they are answered.

They are kept as they came. Whoever has the manager's public key can verify them.
"""

import base64
import contextlib
import errno
import os
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from pydantic import ValidationError

from copilot_agent.protocol.receipt import Receipt

MOST_BYTES = 256 << 20
"""About 300,000 receipts. A guest that invents more does not fill the disk."""

MOST_UPLOADED_BYTES = 16 << 20
MOST_UPLOADED = 20_000
"""A BOINC project takes no larger file; one with more in it would be worth nothing."""


class ReceiptsFullError(Exception):
    """The file has reached its bound."""


def is_signed(receipt: Receipt, keys: Collection[str]) -> bool:
    """Whether one of these managers has signed it; without any key everything is taken.

    A guest that is not what it should be could invent receipts, and one of them would make a
    project refuse all that are handed in with it.
    """
    if not keys:
        return True
    key = receipt.statement.key
    if key not in keys:
        return False
    try:
        public = Ed25519PublicKey.from_public_bytes(_decode(key))
        public.verify(_decode(receipt.signature), receipt.signed())
    except (InvalidSignature, ValueError):
        return False
    return True


def _decode(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


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
        data = _lines(receipts)
        with self._path.open("ab", buffering=0) as file:
            before = file.tell()
            if before + len(data) > self._most_bytes:
                raise ReceiptsFullError(f"{self._path} has reached {self._most_bytes >> 20} MiB")
            if before and not self._ends_with_newline():
                data = b"\n" + data
            try:
                if file.write(data) < len(data):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                os.fsync(file.fileno())
            except OSError:
                file.truncate(before)  # they come again, and would be there twice
                raise

    def hand_in(self, target: Path) -> None:
        """Write for the project what it can count: each whole receipt once, no more than it takes.

        It refuses a file with anything else in it altogether. Raises `OSError`.
        """
        seen: set[str] = set()
        written = 0
        with target.open("wb") as file:
            for receipt in self.load():
                line = _lines([receipt])
                if receipt.statement.id in seen or written + len(line) > MOST_UPLOADED_BYTES:
                    continue
                if len(seen) == MOST_UPLOADED:
                    break
                seen.add(receipt.statement.id)
                written += file.write(line)
            file.flush()
            os.fsync(file.fileno())

    def _ends_with_newline(self) -> bool:
        with self._path.open("rb") as file:
            file.seek(-1, os.SEEK_END)
            return file.read(1) == b"\n"


def _lines(receipts: Iterable[Receipt]) -> bytes:
    return "".join(f"{receipt.model_dump_json()}\n" for receipt in receipts).encode()
