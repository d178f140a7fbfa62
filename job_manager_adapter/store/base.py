"""The store's interface: batched and set-based.

Each changing method takes many operations and returns as many results in their order, after the
commit that covers them; calls that arrive while a commit is under way share the next one. An
operation that cannot be done says so in its result and disturbs no other. A failure of the database
itself is a StoreError; nothing of that call was done.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from copilot_agent.protocol.errors import CopilotError, ErrorCode
from copilot_agent.protocol.job import JobState
from copilot_agent.protocol.receipt import Receipt
from job_manager_adapter.core.matching import RequirementClass
from job_manager_adapter.store.credit_records import CreditQuery, CreditRow
from job_manager_adapter.store.fleet_records import (
    DrainRow,
    Enrolled,
    EnrolmentRow,
    Holdings,
    HostRow,
    NewPilot,
    PilotChange,
    PilotRow,
    Retire,
)
from job_manager_adapter.store.records import (
    AttemptRow,
    Cancelled,
    Claim,
    Claimed,
    Finish,
    Finished,
    JobQuery,
    JobRow,
    JournalEntry,
    Ledger,
    OpenLease,
    PeerNews,
    Release,
    Released,
    Retried,
    Selected,
    Start,
    Submission,
    Submitted,
    TokenRow,
    UpstreamDue,
    Waiting,
)


class StoreError(CopilotError):
    """The database refused: no space, a broken file, a schema that is too new."""

    code = ErrorCode.UNAVAILABLE


@dataclass
class StoreStats:
    commits: int = 0
    commit_seconds: float = 0.0
    operations: int = 0


class JobStore(Protocol):
    async def submit(self, many: Sequence[Submission]) -> list[Submitted]: ...

    async def claim(self, many: Sequence[Claim]) -> list[list[Claimed]]:
        """In one call a later claim never gets what an earlier one got."""

    async def start(self, many: Sequence[Start]) -> list[bool]:
        """Leased becomes running; False if the attempt is not open or not this pilot's."""

    async def finish(self, many: Sequence[Finish]) -> list[Finished]:
        """Report, outputs, receipt and ledger in one transaction, judged by core.attempts."""

    async def release(self, many: Sequence[Release]) -> list[Released]: ...

    async def cancel(self, many: Sequence[Selected]) -> list[Cancelled]: ...

    async def retry(self, many: Sequence[Selected]) -> list[Retried]:
        """Failed and cancelled jobs wait again, with a clean count."""

    async def forget(self, jobs: Sequence[str]) -> None:
        """Deletes final jobs with their attempts; receipts stay."""

    async def forget_keys(self, before: float) -> int:
        """Deletes older idempotency keys, unless a job of theirs is still known."""

    async def job(self, job: str) -> JobRow | None: ...

    async def jobs(self, query: JobQuery) -> list[JobRow]: ...

    async def attempts(self, job: str) -> list[AttemptRow]: ...

    async def specs(self, jobs: Sequence[str]) -> dict[str, bytes]: ...

    async def counts(self, experiment: str | None, batch: str | None) -> dict[JobState, int]: ...

    async def waiting_ahead(self, row: JobRow) -> int:
        """Waiting jobs of the same experiment that come first."""

    async def finished_before(self, at: float, limit: int) -> list[tuple[str, int]]:
        """(job, number of attempts) of jobs that have been final since before `at`."""

    async def classes(self) -> list[RequirementClass]: ...

    async def waiting(self) -> list[Waiting]: ...

    async def open_leases(self) -> list[OpenLease]: ...

    async def upstream_due(self, experiment: str, limit: int) -> list[UpstreamDue]: ...

    async def upstream_open(self, experiment: str) -> list[tuple[str, str]]:
        """(job, upstream id) of those that are not final."""

    async def upstream_told(self, told: Sequence[tuple[str, JobState]]) -> None: ...


class FleetStore(Protocol):
    async def enrol(self, many: Sequence[NewPilot]) -> list[Enrolled]: ...

    async def change_pilots(self, many: Sequence[PilotChange]) -> None: ...

    async def retire(self, many: Sequence[Retire]) -> list[list[Released]]: ...

    async def pilot(self, pilot: str) -> PilotRow | None: ...

    async def pilots(
        self,
        *,
        host: str | None = None,
        retired: bool | None = None,
        before: str | None = None,
        limit: int = 100,
    ) -> list[PilotRow]:
        """Newest first."""

    async def holders(self) -> list[PilotRow]:
        """Who has open leases and is not retired; in no order."""

    async def drain(self, many: Sequence[DrainRow]) -> None:
        """A later one for the same scope takes the earlier one's place."""

    async def undrain(self, many: Sequence[str]) -> list[bool]:
        """By scope; False where there was no drain."""

    async def drains(self) -> list[DrainRow]:
        """A retired pilot's is gone."""

    async def ban(self, host: str, reason: str, banned: bool) -> bool:
        """False if there is no such host."""

    async def host(self, host: str) -> HostRow | None: ...

    async def hosts(self, *, before: str | None = None, limit: int = 100) -> list[HostRow]:
        """Newest first."""

    async def add_enrolments(self, many: Sequence[EnrolmentRow]) -> None: ...

    async def revoke_enrolment(self, enrolment: str) -> bool: ...

    async def enrolments(self) -> list[EnrolmentRow]: ...


class LedgerStore(Protocol):
    async def receipts(
        self, experiment: str | None, after: int, limit: int
    ) -> list[tuple[int, Receipt]]:
        """With the number to go on after, oldest first."""

    async def receipts_due(self, launcher_key: str, limit: int) -> list[Receipt]:
        """Not yet known to be kept by the launcher."""

    async def receipts_kept(self, launcher_key: str, ids: Sequence[str]) -> None: ...

    async def ledger(self, experiment: str | None) -> Ledger: ...

    async def credit(self, query: CreditQuery) -> list[CreditRow]:
        """By enrolment and experiment, in the order of both."""


class AccessStore(Protocol):
    async def add_token(self, token: TokenRow) -> None: ...

    async def revoke_token(self, token_id: str) -> bool: ...

    async def tokens(self) -> list[TokenRow]: ...

    async def token(self, sha256: str) -> TokenRow | None: ...

    async def append_journal(self, entry: JournalEntry, keep: int) -> int:
        """Drops entries that end more than `keep` events ago.

        Returns the number of its first event: behind what other managers have written meanwhile.
        """

    async def journal(self, after: int, limit: int) -> list[JournalEntry]:
        """Entries with events beyond `after`, oldest first."""

    async def journal_last(self) -> int: ...


class PeerStore(Protocol):
    """What several managers of one database have beside their `Store`s.

    A pilot is the manager's that it attached to last. A manager whose connection broke and did not
    come back is dead: another one adopts its pilots.
    """

    @property
    def leading(self) -> bool:
        """At most one manager leads at a time; none does for a moment after a leader's death."""

    async def join(self, name: str) -> None:
        """Before anything else is done; `name` is for people. Raises StoreError."""

    async def agree(self, fact: str, value: str) -> str:
        """What all managers of the database hold for this fact; `value` if they held nothing."""

    async def leave(self) -> None: ...

    async def tend(self) -> None:
        """Every few seconds; comes back after a broken connection. Raises StoreError."""

    async def news(self) -> PeerNews:
        """Waits for the next. After each gap, and when pilots were adopted, it is a NewsRecount."""

    async def take(self, pilots: Sequence[str]) -> list[OpenLease]:
        """These are this manager's from now on; returns what they hold."""

    async def has(self, pilot: str) -> bool:
        """Whether it is this manager's."""

    async def mine(self) -> Holdings:
        """This manager's pilots."""

    async def adopt(self) -> None:
        """Pilots of managers that are dead are this manager's from now on."""

    async def post(self, note: str) -> None:
        """What the others may read of this manager, in place of what it posted before."""

    async def notes(self) -> list[str]:
        """What the other living managers posted."""

    async def dry(self, classes: Sequence[int]) -> list[int]:
        """Those of the classes in which nothing waits."""


class Store(JobStore, FleetStore, LedgerStore, AccessStore, Protocol):
    @property
    def stats(self) -> StoreStats: ...

    async def open(self) -> None:
        """Opens and migrates. Raises StoreError for a newer schema, with the remedy."""

    async def close(self) -> None: ...

    async def backup(self, target: Path) -> None:
        """A consistent copy while the store is in use."""

    async def check(self) -> list[str]:
        """Problems of integrity; empty is good."""
