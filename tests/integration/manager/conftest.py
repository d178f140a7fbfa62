"""A real manager on a free port, with real files and a real database."""

from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from job_manager_adapter.app import Manager
from job_manager_adapter.settings import Settings, load
from job_manager_adapter.views import Role


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load(
        None,
        {
            "data_dir": str(tmp_path / "data"),
            "server.port": 0,
            "policy.heartbeat_seconds": 1.0,
            "policy.lease_seconds": 10.0,
            "limits.free_space_mib": 1,
            "limits.request_seconds": 2.0,
            "experiments": {"demo": {}, "other": {}},
        },
    )


@pytest.fixture
async def manager(settings: Settings) -> AsyncIterator[Manager]:
    manager = Manager(settings)
    async with manager.running():
        yield manager


@pytest.fixture
async def http(manager: Manager) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(manager.url) as session:
        yield session


@pytest.fixture
async def operator(manager: Manager) -> str:
    return (manager.settings.data_dir / "operator.token").read_text().strip()


@pytest.fixture
async def experiment(manager: Manager) -> str:
    view = await manager.services.tokens.create(Role.EXPERIMENT, "demo")
    return view.token or ""


@pytest.fixture
async def stranger(manager: Manager) -> str:
    """A token of another experiment."""
    view = await manager.services.tokens.create(Role.EXPERIMENT, "other")
    return view.token or ""
