"""What managers of one database tell each other (LISTEN/NOTIFY), always with a commit."""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from job_manager_adapter.store.records import (
    NewsDrains,
    NewsEnded,
    NewsEvents,
    NewsMoved,
    NewsRecount,
    NewsRetired,
    NewsWaiting,
    PeerNews,
    Waiting,
)

CHANNEL = "copilot"
"""Everybody's; with a manager's number behind it (copilot_7) that manager's own."""
_MAX_BUCKETS = 150
"""In one message, which PostgreSQL bounds at 8000 bytes."""


@dataclass
class Me:
    """This manager among those of the database."""

    number: int = 0
    """0: it has not joined, and speaks to nobody."""
    part: int = 0
    """Of the ledger."""


async def tell(connection: Any, channel: str, message: dict[str, Any]) -> None:
    await connection.execute("SELECT pg_notify($1, $2)", channel, json.dumps(message))


async def tell_waiting(connection: Any, me: Me, waiting: Iterable[Waiting | None]) -> None:
    """Jobs began to wait."""
    if not me.number:
        return
    buckets: dict[tuple[int, int], list[int]] = {}
    for item in waiting:
        if item is not None:
            bucket = buckets.setdefault((item.klass.id, item.priority), [0, item.head])
            bucket[0] += item.count
            bucket[1] = min(bucket[1], item.head)
    rows = [[*key, *bucket] for key, bucket in buckets.items()]
    for start in range(0, len(rows), _MAX_BUCKETS):
        part = rows[start : start + _MAX_BUCKETS]
        await tell(connection, CHANNEL, {"from": me.number, "waiting": part})


_KINDS: Mapping[str, Callable[[Any], PeerNews]] = {
    "waiting": lambda rows: NewsWaiting(tuple(tuple(row) for row in rows)),
    "ended": lambda values: NewsEnded(*values),
    "moved": NewsMoved,
    "retired": NewsRetired,
    "drains": lambda _: NewsDrains(),
    "events": NewsEvents,
    "recount": lambda _: NewsRecount(),
}


def read(payload: str, me: Me) -> PeerNews | None:
    """None where it is our own, or of a kind that only a newer manager knows."""
    message = json.loads(payload)
    if message.get("from") == me.number:
        return None
    for kind, value in message.items():
        if kind in _KINDS:
            return _KINDS[kind](value)
    return None
