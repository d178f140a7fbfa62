"""Log lines, one each, for people or for programs; never with a control character in them."""

import json
import logging
import sys
import time
from collections.abc import Callable
from typing import Any

KEYS = ("pilot", "job", "attempt")


def escaped(text: str) -> str:
    """Text from outside cannot forge a line or steer a terminal."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode("ascii")
        for char in text
    )


def keys_of(record: logging.LogRecord) -> dict[str, Any]:
    return {key: getattr(record, key) for key in KEYS if hasattr(record, key)}


class TextFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        when = time.strftime("%H:%M:%S", time.localtime(record.created))
        lines = [escaped(f"{when} {record.levelname.lower():7} {record.getMessage()}")]
        if record.exc_info:
            trace = self.formatException(record.exc_info)
            lines += ["    " + escaped(line) for line in trace.splitlines()]
        return "\n".join(lines)


class JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        entry = {
            "time": round(record.created, 3),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **keys_of(record),
        }
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry)


def set_up(kind: str, level: int = logging.INFO) -> None:
    """`kind` is text or json; lines go to stderr."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if kind == "json" else TextFormatter())
    logging.basicConfig(level=level, handlers=[handler], force=True)
    logging.getLogger("asyncio").setLevel(logging.WARNING)


class Forwarder(logging.Handler):
    """Hands lines at warning and above to somebody else, without ever failing on it."""

    def __init__(self, send: Callable[[str, str], None]) -> None:
        """`send` takes the level and the line."""
        super().__init__(logging.WARNING)
        self._send = send

    def emit(self, record: logging.LogRecord) -> None:
        level = "error" if record.levelno >= logging.ERROR else "warning"
        self._send(level, escaped(record.getMessage())[:2000])
