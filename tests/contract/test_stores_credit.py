"""One suite for every store: sums of receipts by enrolment."""

from job_manager_adapter.store.base import Store
from job_manager_adapter.store.credit_records import CreditQuery, CreditRow
from job_manager_adapter.store.records import Finish
from tests.harness.stores import (
    claim,
    earned,
    enrolment,
    ident,
    new_job,
    report,
    submit,
)


async def earn(
    store: Store, number: int, with_enrolment: str, at: float, experiment: str = "lhc"
) -> None:
    job = ident("j", number)
    await submit(store, new_job(number, experiment=experiment))
    await claim(store, klass=1 if experiment == "lhc" else 2)
    receipt = earned(job, number, enrolment=with_enrolment, experiment=experiment, accepted_at=at)
    await store.finish([Finish("p-1", report(job), at, receipt)])


async def some(store: Store) -> tuple[str, str]:
    """Two enrolments: 300 s and 400 s for one of them, 500 s for the other, all of lhc; and 600 s
    for the first, of alice."""
    known, gone = await enrolment(store), ident("e", 9)
    await earn(store, 1, known, 300.0)
    await earn(store, 2, known, 400.0)
    await earn(store, 3, gone, 500.0)
    await earn(store, 4, known, 600.0, "alice")
    return known, gone


async def test_sums_are_by_enrolment_and_experiment(store: Store) -> None:
    assert await store.credit(CreditQuery()) == []
    known, gone = await some(store)
    assert await store.credit(CreditQuery()) == [
        CreditRow(known, "alice", "box", 2.5, 5.0, 1, 600.0, 600.0),
        CreditRow(known, "lhc", "box", 5.0, 10.0, 2, 300.0, 400.0),
        CreditRow(gone, "lhc", "", 2.5, 5.0, 1, 500.0, 500.0),
    ]


async def test_they_add_up_to_the_ledger(store: Store) -> None:
    await some(store)
    rows, ledger = await store.credit(CreditQuery()), await store.ledger(None)
    assert sum(row.granted for row in rows) == ledger.granted
    assert sum(row.receipts for row in rows) == ledger.receipts


async def test_an_experiment_and_a_span_of_time(store: Store) -> None:
    known, gone = await some(store)

    async def asked(query: CreditQuery) -> list[tuple[str, str, int]]:
        return [(row.enrolment, row.experiment, row.receipts) for row in await store.credit(query)]

    assert await asked(CreditQuery(experiment="alice")) == [(known, "alice", 1)]
    assert await asked(CreditQuery(since=400.0, until=600.0)) == [
        (known, "lhc", 1),
        (gone, "lhc", 1),
    ]
    assert await asked(CreditQuery(until=300.0)) == []


async def test_pages_join_without_gap_or_overlap(store: Store) -> None:
    await some(store)
    whole = await store.credit(CreditQuery())
    paged: list[CreditRow] = []
    after = ("", "")
    while page := await store.credit(CreditQuery(after=after, limit=1)):
        paged += page
        after = (page[-1].enrolment, page[-1].experiment)
    assert paged == whole
