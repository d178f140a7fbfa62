from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from job_manager_adapter.store.sqlite import SqliteStore
from tests.unit.job_manager_adapter.services.world import World


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    store = SqliteStore(tmp_path / "manager.db")
    await store.open()
    world = await World(store).start()
    yield world
    await world.services.close()
    await world.store.close()
