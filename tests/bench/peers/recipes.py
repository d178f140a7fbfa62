"""What each peer needs: a server, workers, and a program that submits.

Settings are those that were fastest here while they keep a job when a worker dies; two worker
processes each, for two cores. HyperQueue's jobs are real processes, the others' are functions.
"""

import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.bench.peers import servers

PROGRAMS = Path(__file__).with_name("programs")
TOOLS = Path(sys.executable).parents[2] / "venv-peers" / "bin"

Server = Callable[[Path], AbstractAsyncContextManager[str]]


@dataclass(frozen=True)
class Recipe:
    key: str
    """`programs/<key>_peer.py` submits, and is what workers run."""
    name: str
    durable: bool
    """Whether a job that was acknowledged survives the computer's sudden end."""
    server: Server
    jobs: int
    """About ten seconds of them on a small computer."""
    prepare: tuple[str, ...] = ()
    workers: tuple[str, ...] = ()
    processes: int = 1
    """So many times `workers`; those that start several by themselves need only one."""


@asynccontextmanager
async def no_server(root: Path) -> AsyncIterator[str]:
    yield ""


PYTHON = str(TOOLS / "python")
RECIPES = (
    Recipe(
        key="procrastinate",
        name="procrastinate + PostgreSQL",
        durable=True,
        server=servers.postgres,
        jobs=3000,
        prepare=(PYTHON, str(PROGRAMS / "procrastinate_peer.py"), "schema"),
        workers=(PYTHON, str(PROGRAMS / "procrastinate_peer.py"), "work"),
        processes=2,
    ),
    Recipe(
        key="taskiq",
        name="taskiq + Redis",
        durable=False,
        server=servers.redis,
        jobs=5000,
        workers=(
            *(PYTHON, "-m", "taskiq", "worker", "taskiq_peer:broker", "--log-level", "WARNING"),
            *("--workers", "2", "--max-async-tasks", "64"),
        ),
    ),
    Recipe(
        key="celery",
        name="Celery + Redis",
        durable=False,
        server=servers.redis,
        jobs=3000,
        workers=(
            *(PYTHON, "-m", "celery", "--app", "celery_peer", "worker", "--loglevel", "WARNING"),
            *("--pool", "prefork", "--concurrency", "2", "--without-gossip", "--without-mingle"),
        ),
    ),
    Recipe(
        key="hyperqueue",
        name="HyperQueue",
        durable=False,
        server=no_server,
        jobs=3000,
        processes=0,
    ),
)
