"""Group commit on one connection: whatever arrives during a commit shares the next one."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import asyncpg

from copilot_agent.protocol.errors import ErrorCode
from job_manager_adapter.store.base import StoreError, StoreStats

log = logging.getLogger(__name__)
Item = TypeVar("Item")
Result = TypeVar("Result")
Connection = Any
"""An asyncpg connection; the library has no types."""
Operation = Callable[[Connection, Sequence[Item]], Awaitable[Sequence[Result]]]
MAX_GROUP = 10_000
"""Operations in one transaction; bounds how long a reply can wait for others."""
SMALL_GROUP = 64
"""So many are not worth two transactions."""
GROUP_SECONDS = 30.0
"""A transaction that takes longer is given up: the database is away, or as good as."""
CLOSE_SECONDS = 10.0
"""What a clean stop waits for the last transaction."""
MAX_TRIES = 5
"""Of a group that lost against another manager's (deadlock)."""
# Every writer's transaction holds this lock with the others; a reader that takes it alone has seen
# the end of all that were under way.
_BEGIN = "BEGIN; SELECT pg_advisory_xact_lock_shared(hashtext('copilot.writers'))"
WAIT_FOR_WRITERS = "SELECT pg_advisory_xact_lock(hashtext('copilot.writers'))"

_LOST = (
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # it was told of the server's end while it was about to ask
    asyncpg.PostgresConnectionError,
    OSError,
    TimeoutError,
)
AWAY = (*_LOST, asyncpg.OperatorInterventionError, asyncpg.TooManyConnectionsError)
FAILURES = (asyncpg.PostgresError, *_LOST)
_AGAIN = (asyncpg.DeadlockDetectedError, asyncpg.SerializationError)


@dataclass(frozen=True, slots=True)
class _Call:
    operation: Operation[Any, Any]
    many: Sequence[Any]
    future: "asyncio.Future[Any]"


class GroupWriter:
    """Runs operations in transactions, one after the other, on a connection of its own."""

    def __init__(
        self,
        connect: Callable[[], Awaitable[Connection]],
        broken: Callable[[], None] = lambda: None,
        last: Operation[Any, Any] | None = None,
    ) -> None:
        """`broken` hears when the end of a transaction is unknown.

        `last` comes after the others of its transaction: so claims find what is just stored.
        """
        self.stats = StoreStats()
        self._connect = connect
        self._broken = broken
        self._last = last
        self._connection: Connection | None = None
        self._calls: list[_Call] = []
        self._task: asyncio.Task[None] | None = None
        self._closed = False

    async def close(self) -> None:
        """Commits what was asked before, then stops."""
        self._closed = True
        if self._task is not None:
            await asyncio.wait([self._task], timeout=CLOSE_SECONDS)
            self._task.cancel()
        await self._disconnect()

    def write(
        self, operation: Operation[Item, Result], many: Sequence[Item]
    ) -> "asyncio.Future[list[Result]]":
        """The results after the commit; raises StoreError if the database fails."""
        future: asyncio.Future[list[Result]] = asyncio.get_running_loop().create_future()
        if self._closed:
            future.set_exception(StoreError("the store is closed"))
        elif not many:
            future.set_result([])
        else:
            self._calls.append(_Call(operation, many, future))
            if self._task is None:
                self._task = asyncio.create_task(self._run())
        return future

    async def _run(self) -> None:
        try:
            while self._calls:
                await self._commit(self._next_group())
        finally:
            self._task = None

    def _next_group(self) -> list[_Call]:
        """About half of what waits, if that is much: so those are answered, and ask for more,
        while the database works for the others.
        """
        most = min(max(sum(len(call.many) for call in self._calls) // 2, SMALL_GROUP), MAX_GROUP)
        size = count = 0
        while count < len(self._calls) and size < most:
            size += len(self._calls[count].many)
            count += 1
        group, self._calls = self._calls[:count], self._calls[count:]
        return sorted(group, key=lambda call: call.operation == self._last)

    async def _commit(self, calls: list[_Call]) -> None:
        started = time.perf_counter()
        try:
            answers = await self._transaction(calls)
        except AWAY as error:
            await self._lost()
            _fail(calls, store_error(error))
            return
        except Exception as error:  # noqa: BLE001 - goes to the caller; the writer must live
            if len(calls) > 1:  # find the one at fault: everybody else's work is done
                for call in calls:
                    await self._commit([call])
                return
            log.error("the database refused %s: %s", calls[0].operation.__name__, error)
            _fail(calls, store_error(error))
            return
        self.stats.commits += 1
        self.stats.commit_seconds += time.perf_counter() - started
        self.stats.operations += sum(len(call.many) for call in calls)
        for call, result in zip(calls, answers, strict=True):
            if not call.future.done():  # else its caller was cancelled
                call.future.set_result(result)

    async def _transaction(self, calls: list[_Call]) -> list[list[Any]]:
        for left in range(MAX_TRIES - 1, -1, -1):
            connection = await self._connected()
            try:
                async with asyncio.timeout(GROUP_SECONDS):
                    await connection.execute(_BEGIN)
                    answers = await _work(connection, calls)
                    await connection.execute("COMMIT")
                return answers
            except _LOST:
                raise
            except BaseException as error:
                await self._roll_back()
                if not (left and isinstance(error, _AGAIN)):
                    raise
        raise AssertionError("the last try returns or raises")

    async def _roll_back(self) -> None:
        try:
            async with asyncio.timeout(5):
                await self._connection.execute("ROLLBACK")  # type: ignore[union-attr]
        except FAILURES:
            await self._lost()

    async def _connected(self) -> Connection:
        if self._connection is None or self._connection.is_closed():
            self._connection = await self._connect()
        return self._connection

    async def _lost(self) -> None:
        if self._connection is not None:
            await self._disconnect()
            self._broken()

    async def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(*FAILURES):
                await connection.close(timeout=1)


async def _work(connection: Connection, calls: list[_Call]) -> list[list[Any]]:
    """The results of each call; calls of the same operation are one set."""
    sets: dict[Operation[Any, Any], list[int]] = {}
    for index, call in enumerate(calls):
        sets.setdefault(call.operation, []).append(index)
    answers: list[list[Any]] = [[] for _ in calls]
    for operation, members in sets.items():
        together = [item for index in members for item in calls[index].many]
        results = await operation(connection, together)
        start = 0
        for index in members:
            answers[index] = list(results[start : start + len(calls[index].many)])
            start += len(calls[index].many)
    return answers


def _fail(calls: list[_Call], error: StoreError) -> None:
    for call in calls:
        if not call.future.done():
            call.future.set_exception(error)


def store_error(error: BaseException) -> StoreError:
    """What a failure of the database means for the user. Never carries the URL or a password."""
    if isinstance(error, StoreError):
        return error
    if isinstance(error, asyncpg.DiskFullError):
        return StoreError(
            "no space left for the database",
            remedy="free space on the database server's disk; nothing acknowledged was lost",
            code=ErrorCode.NO_SPACE,
        )
    if isinstance(error, asyncpg.InvalidAuthorizationSpecificationError):
        return StoreError(
            f"the database refused: {error}", remedy="check user and password of store.url"
        )
    if isinstance(error, AWAY):
        what = str(error) or type(error).__name__
        return StoreError(
            f"the database does not answer: {what}",
            remedy="start it, or correct store.url; a running manager goes on by itself",
        )
    return StoreError(f"the database failed: {error}", code=ErrorCode.INTERNAL)
