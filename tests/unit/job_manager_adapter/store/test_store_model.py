"""Each database against the memory store: whatever is done to both, both say the same."""

import asyncio
import tempfile
from collections.abc import Coroutine
from pathlib import Path
from typing import TypeVar

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    rule,
    run_state_machine_as_test,
)

from copilot_agent.protocol.frames import Report
from copilot_agent.protocol.ids import make_id
from copilot_agent.protocol.job import FailureClass, JobState, Outcome, Requirements
from copilot_agent.protocol.receipt import Receipt, Statement
from job_manager_adapter.store.base import Store
from job_manager_adapter.store.fleet_records import Retire
from job_manager_adapter.store.memory import MemoryStore
from job_manager_adapter.store.postgres import PostgresStore
from job_manager_adapter.store.records import (
    Claim,
    Finish,
    JobQuery,
    NewJob,
    Release,
    Selected,
    SignedReceipt,
    Start,
    Submission,
)
from job_manager_adapter.store.sqlite import SqliteStore
from tests.harness.postgres import Postgres

T = TypeVar("T")
PILOTS = ("p-1", "p-2")
numbers = st.integers(1, 12)
attempt_numbers = st.integers(1, 4)
pilots = st.sampled_from(PILOTS)
losses = st.sampled_from(
    [FailureClass.LEASE_LOST, FailureClass.PREEMPTED, FailureClass.VOLUNTEER_LEFT]
)
KEY = "k" * 43


def job_id(number: int) -> str:
    return make_id("j", 1.0, number)


class Stores(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.folder = tempfile.TemporaryDirectory()
        self.ours = self.open_again()
        self.memory = MemoryStore()
        self.do(self.ours.open())
        self.submitted = 0
        self.at = 100.0

    def open_again(self) -> Store:
        return SqliteStore(Path(self.folder.name) / "store.db")

    def do(self, work: Coroutine[object, object, T]) -> T:
        return self.runner.run(work)

    def same(
        self, ours: Coroutine[object, object, T], theirs: Coroutine[object, object, T]
    ) -> None:
        self.at += 1
        left, right = self.do(ours), self.do(theirs)
        assert left == right

    def teardown(self) -> None:
        self.do(self.ours.close())
        self.runner.close()
        self.folder.cleanup()

    @rule(
        shapes=st.lists(
            st.tuples(st.integers(1, 2), st.integers(0, 1), st.integers(1, 3)), max_size=3
        ),
        key=st.sampled_from([None, "a", "b"]),
        digest=st.sampled_from(["x", "y"]),
    )
    def submit(self, shapes: list[tuple[int, int, int]], key: str | None, digest: str) -> None:
        jobs = []
        for cores, priority, attempts in shapes:
            self.submitted += 1
            jobs.append(
                NewJob(
                    id=job_id(self.submitted),
                    experiment="lhc",
                    name="job",
                    spec=b"{}",
                    requirements=Requirements(cores=cores),
                    priority=priority,
                    max_attempts=attempts,
                    pause_seconds=60.0,
                )
            )
        item = [Submission(f"b-{self.submitted}", tuple(jobs), self.at, "lhc", key, digest)]
        self.same(self.ours.submit(item), self.memory.submit(item))

    @rule(wishes=st.lists(st.tuples(pilots, st.integers(1, 2), st.integers(1, 4)), max_size=3))
    def claim(self, wishes: list[tuple[str, int, int]]) -> None:
        many = [Claim(pilot, klass, count, self.at) for pilot, klass, count in wishes]
        self.same(self.ours.claim(many), self.memory.claim(many))

    @rule(number=numbers, attempt=attempt_numbers, pilot=pilots)
    def start(self, number: int, attempt: int, pilot: str) -> None:
        many = [Start(job_id(number), attempt, pilot, self.at)]
        self.same(self.ours.start(many), self.memory.start(many))

    @rule(
        ends=st.lists(
            st.tuples(
                numbers,
                attempt_numbers,
                pilots,
                st.sampled_from([Outcome.SUCCEEDED, Outcome.FAILED, Outcome.CANCELLED]),
                st.sampled_from([None, FailureClass.STAGE_IN, FailureClass.HOST]),
            ),
            max_size=5,
        )
    )
    def finish(self, ends: list[tuple[int, int, str, Outcome, FailureClass | None]]) -> None:
        many = []
        for number, attempt, pilot, outcome, failure in ends:
            report = Report.model_validate(
                {
                    "job": job_id(number),
                    "attempt": attempt,
                    "outcome": outcome,
                    "failure_class": failure,
                }
            )
            many.append(Finish(pilot, report, self.at, self.receipt(report)))
        self.same(self.ours.finish(many), self.memory.finish(many))

    def receipt(self, report: Report) -> SignedReceipt:
        statement = Statement(
            key=KEY,
            id=make_id("r", self.at, report.attempt),
            enrolment=make_id("e", 1.0, 1),
            launcher=KEY,
            pilot=make_id("p", 1.0, 1),
            experiment="lhc",
            job=report.job,
            attempt=report.attempt,
            cpu_seconds=1.0,
            granted=1.0,
            leased_at=1.0,
            accepted_at=self.at,
        )
        return SignedReceipt.of(Receipt(statement=statement, signature="s" * 86))

    @rule(ends=st.lists(st.tuples(numbers, attempt_numbers, losses), max_size=4))
    def release(self, ends: list[tuple[int, int, FailureClass]]) -> None:
        many = [Release(job_id(n), attempt, why, "gone", self.at) for n, attempt, why in ends]
        self.same(self.ours.release(many), self.memory.release(many))

    @rule(pilot=pilots)
    def retire(self, pilot: str) -> None:
        many = [Retire((pilot,), FailureClass.PREEMPTED, "bye", self.at)]
        ours, theirs = self.do(self.ours.retire(many)), self.do(self.memory.retire(many))
        assert sorted(ours[0], key=str) == sorted(theirs[0], key=str)

    @rule(many=st.lists(numbers, max_size=3, unique=True))
    def cancel(self, many: list[int]) -> None:
        chosen = [Selected(job_id(number), None, self.at) for number in many]
        self.same(self.ours.cancel(chosen), self.memory.cancel(chosen))

    @rule(number=numbers)
    def retry(self, number: int) -> None:
        chosen = [Selected(job_id(number), "lhc", self.at)]
        self.same(self.ours.retry(chosen), self.memory.retry(chosen))

    @rule()
    def reopen(self) -> None:
        self.do(self.ours.close())
        self.ours = self.open_again()
        self.do(self.ours.open())

    @invariant()
    def tables_agree(self) -> None:
        query = JobQuery(limit=100)
        rows = self.do(self.ours.jobs(query))
        assert rows == self.do(self.memory.jobs(query))
        for row in rows:
            ours = self.do(self.ours.attempts(row.id))
            assert ours == self.do(self.memory.attempts(row.id))
            assert [attempt.attempt for attempt in ours] == list(range(1, row.attempt + 1))
            assert sum(attempt.ended_at is None for attempt in ours) == (row.pilot is not None)

    @invariant()
    def credit_is_one_receipt_for_each_success(self) -> None:
        ledger = self.do(self.ours.ledger("lhc"))
        assert ledger == self.do(self.memory.ledger("lhc"))
        counts = self.do(self.ours.counts(None, None))
        assert ledger.receipts == counts.get(JobState.SUCCEEDED, 0)

    @invariant()
    def leases_and_counters_agree(self) -> None:
        ours, theirs = self.do(self.ours.open_leases()), self.do(self.memory.open_leases())
        assert sorted(ours, key=str) == sorted(theirs, key=str)
        ours_wait, theirs_wait = self.do(self.ours.waiting()), self.do(self.memory.waiting())
        assert sorted(ours_wait, key=str) == sorted(theirs_wait, key=str)


class PostgresStores(Stores):
    cluster: Postgres

    def __init__(self) -> None:
        self.url = self.cluster.database()
        super().__init__()

    def open_again(self) -> Store:
        return PostgresStore(self.url)


def thorough(examples: int) -> settings:
    return settings(
        max_examples=examples,
        stateful_step_count=30,
        deadline=None,
        phases=(Phase.explicit, Phase.reuse, Phase.generate),  # to shrink would take many fsyncs
        suppress_health_check=[HealthCheck.too_slow],
    )


TestStores = Stores.TestCase
TestStores.settings = thorough(25)


def test_postgres(postgres: Postgres) -> None:
    PostgresStores.cluster = postgres
    run_state_machine_as_test(PostgresStores, settings=thorough(8))
