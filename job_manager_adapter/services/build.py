"""Puts the services together over a store."""

from collections.abc import Mapping
from dataclasses import dataclass

from job_manager_adapter.adapters.base import Adapter
from job_manager_adapter.services.context import Clock, Config, Ids, Signer
from job_manager_adapter.services.credit import Credit
from job_manager_adapter.services.enrolments import Enrolments
from job_manager_adapter.services.events import Events
from job_manager_adapter.services.hosts import Hosts
from job_manager_adapter.services.housekeeping import Housekeeping
from job_manager_adapter.services.jobs import Jobs
from job_manager_adapter.services.links import Links
from job_manager_adapter.services.pilots import Pilots
from job_manager_adapter.services.tokens import Tokens
from job_manager_adapter.store.base import Store
from job_manager_adapter.views import PilotState


@dataclass(frozen=True)
class Stats:
    """For /metrics; cheap, from memory."""

    jobs_waiting: Mapping[str, int]
    """By experiment."""
    leases_open: int
    pilots: Mapping[PilotState, int]
    attempts_ended: Mapping[str, int]
    """Since the start, by outcome."""
    commits: int
    commit_seconds: float
    operations: int


@dataclass(frozen=True)
class Services:
    jobs: Jobs
    pilots: Pilots
    credit: Credit
    hosts: Hosts
    enrolments: Enrolments
    tokens: Tokens
    events: Events
    housekeeping: Housekeeping

    async def start(self) -> None:
        """Reads counters and open leases; every open lease gets a fresh grace."""
        raise NotImplementedError

    async def run(self) -> None:
        """Housekeeping, until cancelled. For the application's TaskGroup."""
        raise NotImplementedError

    async def close(self) -> None:
        """Waits for operations under way and closes the sessions; the store stays open."""
        raise NotImplementedError

    def stats(self) -> Stats:
        raise NotImplementedError


def build_services(
    store: Store,
    *,
    clock: Clock,
    ids: Ids,
    signer: Signer,
    links: Links,
    config: Config,
    adapters: Mapping[str, Adapter] | None = None,
) -> Services:
    """`adapters` by experiment's name; experiments without one use the built-in queue."""
    raise NotImplementedError
