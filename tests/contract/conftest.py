"""Every kind of store, for the suite of stores."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from job_manager_adapter.store.base import Store
from job_manager_adapter.store.memory import MemoryStore
from job_manager_adapter.store.postgres import PostgresStore
from job_manager_adapter.store.sqlite import SqliteStore
from tests.harness.postgres import Postgres


@pytest.fixture(params=["memory", "sqlite", "postgres"])
def made(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    match request.param:
        case "memory":
            yield MemoryStore()
        case "sqlite":
            yield SqliteStore(tmp_path / "store.db")
        case _:
            postgres: Postgres = request.getfixturevalue("postgres")
            yield PostgresStore(postgres.database())


@pytest.fixture
async def store(made: Store) -> AsyncIterator[Store]:
    await made.open()
    yield made
    await made.close()
