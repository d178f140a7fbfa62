"""Puts the services together over a store."""

from collections.abc import Mapping
from dataclasses import dataclass

from copilot_agent.protocol.job import FailureClass
from job_manager_adapter.adapters.base import Adapter
from job_manager_adapter.services.context import Clock, Config, Ids, Signer
from job_manager_adapter.services.conversation import Conversation
from job_manager_adapter.services.credit import Credit
from job_manager_adapter.services.dispatch import Dispatcher
from job_manager_adapter.services.drains import Draining
from job_manager_adapter.services.enrolments import Enrolments
from job_manager_adapter.services.events import Events
from job_manager_adapter.services.hosts import Hosts
from job_manager_adapter.services.housekeeping import Housekeeping
from job_manager_adapter.services.jobs import Jobs
from job_manager_adapter.services.links import Links
from job_manager_adapter.services.peers import Peers
from job_manager_adapter.services.pilots import Pilots
from job_manager_adapter.services.reports import Reports
from job_manager_adapter.services.timings import Timings
from job_manager_adapter.services.tokens import Tokens
from job_manager_adapter.services.upstream import Upstream
from job_manager_adapter.store.base import PeerStore, Store
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
    attempts_failed: Mapping[FailureClass, int]
    """Since the start, by why."""
    tallies: Mapping[str, int]
    """Since the start: pilots_registered, pilots_lost, leases_expired."""
    timings: Timings
    commits: int
    commit_seconds: float
    operations: int


class Services:
    """All use cases over one store."""

    def __init__(
        self,
        store: Store,
        *,
        clock: Clock,
        ids: Ids,
        signer: Signer,
        links: Links,
        config: Config,
        adapters: Mapping[str, Adapter],
        peers: PeerStore | None = None,
    ) -> None:
        self.events = Events(store, clock, config.events_kept)
        self._dispatcher = Dispatcher(store, clock, ids, config, self.events)
        reports = Reports(self._dispatcher, signer, links)
        self.draining = Draining(self._dispatcher)
        if peers is not None:
            fetches = any(adapter.poll_seconds is not None for adapter in adapters.values())
            self._dispatcher.peers = Peers(peers, self._dispatcher, self.draining, fetches=fetches)
        conversation = Conversation(self._dispatcher, reports, links, self.draining)
        self.jobs = Jobs(self._dispatcher, links)
        self.pilots = Pilots(self._dispatcher, conversation, self.draining, signer)
        self.credit = Credit(store, signer)
        self.hosts = Hosts(self._dispatcher, self.draining)
        self.enrolments = Enrolments(store, clock, ids)
        self.tokens = Tokens(store, clock, ids, config.experiments)
        self.upstreams = tuple(
            Upstream(experiment, adapter, self._dispatcher, self.jobs)
            for experiment, adapter in adapters.items()
        )
        self.housekeeping = Housekeeping(
            self._dispatcher, self.events, links, self.draining, self.upstreams
        )

    async def start(self) -> None:
        """Reads counters and open leases; every open lease gets a fresh grace."""
        await self._dispatcher.peers.start()
        await self.events.start()
        await self.draining.refresh()
        await self._dispatcher.start()

    async def run(self) -> None:
        """Housekeeping, until cancelled. For the application's TaskGroup."""
        await self.housekeeping.run()

    @property
    def leads(self) -> bool:
        """Whether this manager does what one of those on the database has to do for all."""
        return self._dispatcher.peers.leads

    async def settle(self) -> None:
        """Waits until what is under way is committed."""
        await self._dispatcher.settle()

    async def close(self) -> None:
        """Waits for operations under way and closes the sessions; the store stays open."""
        await self._dispatcher.close()
        await self.events.close()

    def stats(self) -> Stats:
        dispatcher = self._dispatcher
        now, lease_seconds = dispatcher.clock.monotonic(), dispatcher.config.policy.lease_seconds
        store = dispatcher.store.stats
        return Stats(
            jobs_waiting=dispatcher.waiting(),
            leases_open=len(dispatcher.leases),
            pilots=dispatcher.fleet.states(now, lease_seconds),
            attempts_ended=dispatcher.ended,
            attempts_failed=dispatcher.failed,
            tallies=dispatcher.tallies,
            timings=dispatcher.timings,
            commits=store.commits,
            commit_seconds=store.commit_seconds,
            operations=store.operations,
        )


def build_services(
    store: Store,
    *,
    clock: Clock,
    ids: Ids,
    signer: Signer,
    links: Links,
    config: Config,
    adapters: Mapping[str, Adapter] | None = None,
    peers: PeerStore | None = None,
) -> Services:
    """`adapters` by experiment's name; experiments without one use the built-in queue.

    `peers` where other managers may work on the same store; it has joined them.
    """
    return Services(
        store,
        clock=clock,
        ids=ids,
        signer=signer,
        links=links,
        config=config,
        adapters=adapters or {},
        peers=peers,
    )
