"""A database with a commit boundary around the memory store.

What the memory store holds is durable. A change is asked for, waits for its commit, is made
durable together with whatever else waits, and is acknowledged a moment later; manager or database
may die before, in the middle (then all of the group is durable, or nothing) or after.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from job_manager_adapter.store.base import StoreError, StoreStats
from job_manager_adapter.store.memory import MemoryStore
from tests.simulation.loop import Machine, Universe

READS = frozenset(
    (
        "job",
        "jobs",
        "attempts",
        "specs",
        "counts",
        "waiting_ahead",
        "finished_before",
        "classes",
        "waiting",
        "open_leases",
        "holders",
        "upstream_due",
        "upstream_open",
        "pilot",
        "pilots",
        "host",
        "hosts",
        "enrolments",
        "receipts",
        "receipts_due",
        "ledger",
        "credit",
        "tokens",
        "token",
        "journal",
        "journal_last",
        "check",
        "drains",
    )
)
"""Everything else is taken for a change."""


@dataclass(slots=True)
class Call:
    machine: Machine
    name: str
    arguments: tuple[Any, ...]
    named: dict[str, Any]
    future: Any


def outcome_of(work: Any) -> Any:
    """The memory store never waits."""
    if not inspect.iscoroutine(work):
        return work
    coroutine: Any = work
    try:
        coroutine.send(None)
    except StopIteration as end:
        return end.value
    raise AssertionError("the memory store has waited for something")


class Database:
    """`embedded`: it lives in the manager's process, as SQLite does."""

    def __init__(self, universe: Universe, *, embedded: bool) -> None:
        self.universe = universe
        self.embedded = embedded
        self.durable = MemoryStore()
        self.up = True
        self.asked: Callable[[Call], None] = lambda _: None
        self.committed: Callable[[Call, Any], None] = lambda _call, _result: None
        self._waiting: list[Call] = []
        self._group: list[Call] = []

    def take(self, call: Call) -> None:
        if not self.up:
            self.universe.after(0.002, _fail, call)
        elif call.name in READS:
            self.universe.after(0.0005, self._read, call)
        else:
            self.asked(call)
            self._waiting.append(call)
            if not self._group:
                self._begin()

    def _begin(self) -> None:
        if not self._waiting:
            return
        self._group, self._waiting = self._waiting, []
        chance = self.universe.random
        seconds = chance.uniform(0.001, 0.006) if chance.random() < 0.9 else chance.uniform(0.01, 1)
        self.universe.after(seconds, self._commit, self._group)

    def _commit(self, group: list[Call]) -> None:
        if group is not self._group:
            return  # its process died
        self._group = []
        self._make_durable(group)
        self._begin()

    def _make_durable(self, group: list[Call]) -> None:
        for call in group:
            try:
                result = self._do(call)
            except StoreError as error:
                self._answer(call, error)
                continue
            self.committed(call, result)
            self._answer(call, result)

    def _do(self, call: Call) -> Any:
        return outcome_of(getattr(self.durable, call.name)(*call.arguments, **call.named))

    def _read(self, call: Call) -> None:
        if not self.up:
            _fail(call)
            return
        self._answer(call, self._do(call))

    def _answer(self, call: Call, result: Any) -> None:
        self.universe.after(0.0003, _resolve, call, result)

    # ----- what goes wrong

    def crash(self) -> None:
        """The database fails; of the commit under way nothing is durable."""
        self.up = False
        lost, self._group, self._waiting = self._group + self._waiting, [], []
        for call in lost:
            _fail(call)

    def start(self) -> None:
        self.up = True

    def client_died(self, machine: Machine) -> None:
        """What its process had asked for: the group under way is all durable, or not at all."""
        group, self._group = self._group, []
        self._waiting = [call for call in self._waiting if call.machine is not machine]
        if group and self.universe.random.random() < 0.5:
            self.universe.note("store", "the dead manager's last commit is durable")
            self._make_durable(group)
        self._begin()


def _fail(call: Call) -> None:
    _resolve(call, StoreError("the database has failed"))


def _resolve(call: Call, result: Any) -> None:
    call.machine.answer(call.future, result)


class Connection:
    """A `store.base.Store` for one manager process."""

    def __init__(self, database: Database, machine: Machine) -> None:
        self._database = database
        self._machine = machine
        self.stats = StoreStats()

    async def open(self) -> None:
        if not self._database.up:
            raise StoreError("the database is not there")

    async def close(self) -> None: ...

    def __getattr__(self, name: str) -> Callable[..., Any]:
        """Made when it is first asked for; from then on it is an attribute like others."""
        if not inspect.iscoroutinefunction(getattr(self._database.durable, name)):
            raise AttributeError(name)
        may_be_empty = name in READS or name == "claim"

        async def call(*arguments: Any, **named: Any) -> Any:
            if arguments and arguments[0] == [] and not may_be_empty:
                return []  # as a group writer does it
            future = self._machine.loop.create_future()
            self._database.take(Call(self._machine, name, arguments, named, future))
            return await future

        setattr(self, name, call)
        return call
