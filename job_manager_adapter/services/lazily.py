"""What need not be on disk before anybody is answered, written down a moment later, many in one.

A start is only for people to see: were it lost, the pilot's next frame would say it again, and an
attempt that ends before says in its report when it began. A kept receipt that is forgotten is sent
once more.
"""

import asyncio
import logging
from collections.abc import Callable

from job_manager_adapter.core.leases import Key, Lease, Leases
from job_manager_adapter.store.base import Store, StoreError
from job_manager_adapter.store.records import Start

log = logging.getLogger(__name__)
SECONDS = 0.25


class Lazily:
    def __init__(self, store: Store, leases: Leases, spawn: Callable[..., None]) -> None:
        self._store = store
        self._leases = leases
        self._spawn = spawn
        self._starts: dict[Key, None] = {}
        self._kept: dict[str, dict[str, None]] = {}
        """Receipts by their launcher's key."""
        self._timer: asyncio.TimerHandle | None = None

    def started(self, lease: Lease) -> None:
        """`lease.began_at` says when."""
        self._starts[lease.key] = None
        self._arm()

    def kept(self, launcher: str, receipts: tuple[str, ...]) -> None:
        self._kept.setdefault(launcher, {}).update(dict.fromkeys(receipts))
        self._arm()

    @property
    def idle(self) -> bool:
        return self._timer is None

    def flush(self) -> None:
        """Begins to write what there is."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        starts, self._starts = self._starts, {}
        kept, self._kept = self._kept, {}
        if begun := [lease for key in starts if (lease := self._leases.get(key))]:
            self._spawn(self._write_starts(begun))
        for launcher, receipts in kept.items():
            self._spawn(self._write_kept(launcher, tuple(receipts)))

    def _arm(self) -> None:
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(SECONDS, self.flush)

    async def _write_starts(self, begun: list[Lease]) -> None:
        try:
            await self._store.start(
                [Start(it.job, it.attempt, it.pilot, it.began_at or 0.0) for it in begun]
            )
        except StoreError as error:
            log.warning("starts wait for the store: %s", error)
            for lease in begun:
                if self._leases.get(lease.key) is lease:
                    self.started(lease)

    async def _write_kept(self, launcher: str, receipts: tuple[str, ...]) -> None:
        try:
            await self._store.receipts_kept(launcher, receipts)
        except StoreError as error:
            log.warning("receipts of %s are not noted as kept: %s", launcher, error)
