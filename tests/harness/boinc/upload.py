"""The file upload handler: takes files in pieces, tells how much of one it has."""

from __future__ import annotations

import re
from pathlib import Path

from tests.harness.boinc.xml import block, line
from vm_launcher.boinc_project.signing import PublicKey, verify_text

FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,254}")
_PERMANENT, _TRANSIENT = -1, 1


class UploadHandler:
    def __init__(self, directory: Path, key: PublicKey) -> None:
        self._directory = directory
        self._key = key
        directory.mkdir(exist_ok=True)

    def answer(self, body: bytes) -> tuple[str, Path | None]:
        """The reply, and the file if it is whole now."""
        heading, _, data = body.partition(b"<data>\n")
        text = heading.decode(errors="replace")
        asked = _between(text, "get_file_size")
        name = asked or _between(text, "name")
        if not FILE_NAME.fullmatch(name):
            return refusal("invalid filename", _PERMANENT), None
        path = self._directory / name
        if asked:
            return _reply(line("file_size", path.stat().st_size if path.exists() else 0)), None
        return self._take(path, text, data)

    def _take(self, path: Path, heading: str, data: bytes) -> tuple[str, Path | None]:
        most, offset = int(float(_between(heading, "max_nbytes"))), _number(heading, "offset")
        size = _number(heading, "nbytes")
        signature = _between(heading, "xml_signature")
        if not verify_text(
            f"<name>{path.name}</name><max_nbytes>{most}</max_nbytes>", signature, self._key
        ):
            return refusal("invalid signature", _PERMANENT), None
        if size > most:
            return refusal(f"{size} bytes are more than {most}", _PERMANENT), None
        path.touch()
        if path.stat().st_size < offset:
            return refusal("a part before this one is missing", _TRANSIENT), None
        with path.open("r+b") as file:
            file.seek(offset)
            file.write(data[: size - offset])
        whole = path.stat().st_size >= size
        return (_reply(""), path) if whole else (refusal("incomplete"), None)


def refusal(text: str, status: int = _TRANSIENT) -> str:
    return block("data_server_reply", line("status", status), line("message", text))


def _reply(inside: str) -> str:
    return block("data_server_reply", line("status", 0), inside)


def _between(text: str, name: str) -> str:
    found = re.search(f"<{name}>(.*?)</{name}>", text, re.DOTALL)
    return found[1].strip() if found else ""


def _number(text: str, name: str) -> int:
    return int(float(_between(text, name) or 0))
