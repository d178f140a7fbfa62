"""How PostgreSQL carries out what is done for each job: by the index, however small tables were.

A connection makes its plans once, perhaps when there is one job or none; they have to be good for
a million. The first column of an index has to be given: else the whole index is read.
"""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from job_manager_adapter.store import postgres_endings, postgres_jobs
from job_manager_adapter.store.postgres import PostgresStore
from job_manager_adapter.store.postgres_link import WRITER, Link
from job_manager_adapter.store.records import Claim, Submission
from tests.harness.postgres import Postgres
from tests.harness.stores import enrolment, ident, new_job, pilot

STATEMENTS = {
    "claim": postgres_jobs._CLAIM,
    "start": postgres_jobs._START,
    "standing": postgres_endings._STANDING,
    "end": postgres_endings._END,
}
_FIRST_COLUMNS = """
SELECT c.relname, a.attname FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]"""


async def _with_one_job(url: str) -> None:
    store = PostgresStore(url)
    await store.open()
    await store.peers.join("one")
    await enrolment(store)
    await store.enrol([pilot(1)])
    await store.submit([Submission(ident("b", 1), (new_job(1),), 100.0)])
    assert await store.claim([Claim(pilot(1).id, 1, 1, 200.0)])
    await store.close()


async def _plan(connection: Any, statement: str) -> dict[str, Any]:
    """The one that is made once, for all values."""
    await connection.execute(f"PREPARE it AS {statement}")
    count = max(int(number) for number in re.findall(r"\$(\d+)", statement))
    nothing = ", ".join(["NULL"] * count)
    text = await connection.fetchval(f"EXPLAIN (FORMAT JSON) EXECUTE it({nothing})")
    plan: dict[str, Any] = json.loads(text)[0]["Plan"]
    return plan


def _nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for below in plan.get("Plans", ()):
        yield from _nodes(below)


@pytest.mark.parametrize("analyzed", [False, True])
@pytest.mark.parametrize("name", STATEMENTS)
async def test_no_table_is_read_as_a_whole(name: str, analyzed: bool, postgres: Postgres) -> None:
    url = postgres.database()
    await _with_one_job(url)
    connection = await Link(url).connect("plans", WRITER)
    if analyzed:
        await connection.execute("ANALYZE")
    first = dict(await connection.fetch(_FIRST_COLUMNS))
    nodes = list(_nodes(await _plan(connection, STATEMENTS[name])))
    await connection.close()
    kinds = {node["Node Type"] for node in nodes}
    assert not {"Seq Scan", "Merge Join", "Hash Join"} & kinds
    scans = [node for node in nodes if "Index Name" in node]
    assert scans
    for scan in scans:
        assert re.search(rf"\b{first[scan['Index Name']]} = ", scan.get("Index Cond", "")), scan
