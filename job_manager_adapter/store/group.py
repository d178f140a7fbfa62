"""Group commit: one thread writes, and whatever arrives during a commit shares the next one."""

import asyncio
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from copilot_agent.protocol.errors import ErrorCode
from job_manager_adapter.store.base import StoreError, StoreStats

Item = TypeVar("Item")
Result = TypeVar("Result")
Operation = Callable[[sqlite3.Connection, Sequence[Item]], Sequence[Result]]
MAX_GROUP = 20_000
"""Operations in one transaction; bounds how long a reply can wait for others."""


@dataclass(slots=True)
class _Call:
    operation: Operation[Any, Any]
    many: Sequence[Any]
    future: "asyncio.Future[list[Any]]"
    loop: asyncio.AbstractEventLoop


class GroupWriter:
    """Runs operations in transactions on a thread of its own; asked from one event loop."""

    def __init__(
        self,
        connect: Callable[[], sqlite3.Connection],
        last: Operation[Any, Any] | None = None,
    ) -> None:
        """`last` comes after the others of its transaction: so claims find what is just stored."""
        self.stats = StoreStats()
        self._connect = connect
        self._last = last
        self._calls: queue.SimpleQueue[list[_Call] | None] = queue.SimpleQueue()
        self._turn: list[_Call] = []
        """What was asked in this turn of the event loop; it shares a transaction."""
        self._thread = threading.Thread(target=self._run, name="store-writer", daemon=True)
        self._closed = False

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """Commits what was asked before, then stops. Blocks until then."""
        self._closed = True
        self._hand_over()
        self._calls.put(None)
        if self._thread.is_alive():
            self._thread.join()

    def write(
        self, operation: Operation[Item, Result], many: Sequence[Item]
    ) -> "asyncio.Future[list[Result]]":
        """The results after the commit; raises StoreError if the database fails."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[list[Result]] = loop.create_future()
        if self._closed:
            future.set_exception(StoreError("the store is closed"))
        elif not many:
            future.set_result([])
        else:
            if not self._turn:
                loop.call_soon(self._hand_over)
            self._turn.append(_Call(operation, many, future, loop))
        return future

    def _hand_over(self) -> None:
        turn, self._turn = self._turn, []
        if turn:
            self._calls.put(turn)

    def _run(self) -> None:
        connection = self._connect()
        try:
            while not self._closed or not self._calls.empty():
                if group := self._next_group():
                    self._commit(connection, group)
        finally:
            connection.close()

    def _next_group(self) -> list[_Call]:
        """Waits for the first; empty if there will be none."""
        group = self._calls.get() or []
        size = sum(len(call.many) for call in group)
        while size < MAX_GROUP and not self._calls.empty():
            turn = self._calls.get() or []
            group += turn
            size += sum(len(call.many) for call in turn)
        return sorted(group, key=lambda call: call.operation == self._last)

    def _commit(self, connection: sqlite3.Connection, calls: list[_Call]) -> None:
        started = time.perf_counter()
        try:
            answers = _transaction(connection, calls)
        except Exception as error:  # noqa: BLE001 - goes to the caller; the thread must live
            if len(calls) > 1:  # find the one at fault: everybody else's work is done
                for call in calls:
                    self._commit(connection, [call])
                return
            answers = [(calls[0], store_error(error))]
        self.stats.commits += 1
        self.stats.commit_seconds += time.perf_counter() - started
        self.stats.operations += sum(len(call.many) for call in calls)
        _deliver(answers)


_Answer = tuple[_Call, "list[Any] | Exception"]


def _transaction(connection: sqlite3.Connection, calls: list[_Call]) -> list[_Answer]:
    """All calls in one transaction, those of the same operation as one set."""
    sets: dict[Operation[Any, Any], list[_Call]] = {}
    for call in calls:
        sets.setdefault(call.operation, []).append(call)
    answers: list[_Answer] = []
    connection.execute("BEGIN IMMEDIATE")
    try:
        for operation, members in sets.items():
            results = operation(connection, [item for call in members for item in call.many])
            start = 0
            for call in members:
                answers.append((call, list(results[start : start + len(call.many)])))
                start += len(call.many)
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    return answers


def _deliver(answers: list[_Answer]) -> None:
    """One wake-up for each event loop, so that replies of one commit can share a frame."""
    by_loop: dict[asyncio.AbstractEventLoop, list[_Answer]] = {}
    for answer in answers:
        by_loop.setdefault(answer[0].loop, []).append(answer)
    for loop, mine in by_loop.items():
        if not loop.is_closed():
            loop.call_soon_threadsafe(_resolve, mine)


def _resolve(answers: list[_Answer]) -> None:
    for call, result in answers:
        if call.future.done():  # its caller was cancelled
            continue
        if isinstance(result, Exception):
            call.future.set_exception(result)
        else:
            call.future.set_result(result)


def store_error(error: Exception) -> StoreError:
    """What a failure of the database means for the user."""
    text = str(error)
    if "disk is full" in text:
        return StoreError(
            "no space left for the database",
            remedy="free space on the disk of the data directory; nothing acknowledged was lost",
            code=ErrorCode.NO_SPACE,
        )
    if isinstance(error, sqlite3.OperationalError):
        return StoreError(f"the database refused: {text}", remedy="run copilot-manager doctor")
    return StoreError(f"the database failed: {text}", code=ErrorCode.INTERNAL)
