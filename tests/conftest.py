"""Fixtures that every kind of test may use."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
from hypothesis import HealthCheck, settings

from tests.harness.ejabberd import Ejabberd
from tests.harness.postgres import Postgres, cluster
from tests.harness.xmpp import Prosody, XmppServer, running

# a busy computer is no failure
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")


@pytest.fixture(scope="session")
def repository() -> Path:
    """The top of the checkout."""
    return Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def cache(repository: Path) -> Path:
    """What set-up and image build leave for the tests: `venv`, `wheels` and `image` in it."""
    return repository / os.environ.get("COPILOT_CACHE", ".cache")


@pytest.fixture(scope="session")
def launcher_file(repository: Path, cache: Path) -> Path:
    """The launcher as one file, as `make launcher` builds it; made anew if it is out of date."""
    python = str(cache / "venv-launcher/bin/python")
    command = [python, "-m", "deploy.launcher", "--cache", str(cache / "launcher")]
    subprocess.run(command, cwd=repository, check=True, stdout=sys.stderr)
    return cache / "launcher" / "vm-launcher"


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A running PostgreSQL, one for all tests; each takes databases of its own."""
    with cluster() as running:
        yield running


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def prosody() -> AsyncIterator[XmppServer]:
    """As `deploy` configures it, one for all tests."""
    async with running(Prosody) as started:
        yield started


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def ejabberd() -> AsyncIterator[XmppServer]:
    """As `deploy` configures it, one for all tests."""
    async with running(Ejabberd) as started:
        yield started


@pytest.fixture(scope="session", params=["prosody", "ejabberd"])
def xmpp_server(request: pytest.FixtureRequest) -> XmppServer:
    """Both, one after the other."""
    server: XmppServer = request.getfixturevalue(request.param)
    return server


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Nothing is skipped: what a test needs and does not find makes it fail, and says so."""
    if item.get_closest_marker("root") and os.geteuid() != 0:
        pytest.fail(
            "needs root; run the tests as root, or without these: -m 'not root'", pytrace=False
        )
