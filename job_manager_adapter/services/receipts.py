"""What succeeded attempts earn, as signed receipts."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from copilot_agent.protocol.frames import Report
from copilot_agent.protocol.job import Outcome
from copilot_agent.protocol.receipt import Receipt, root_statement
from job_manager_adapter.core import credit
from job_manager_adapter.core.fleet import Pilot
from job_manager_adapter.core.leases import Lease
from job_manager_adapter.core.receipts import tree
from job_manager_adapter.services.context import Clock, Ids, Signer, base64url
from job_manager_adapter.services.outbox import MAX_RECEIPTS, Outbox
from job_manager_adapter.store.base import Store
from job_manager_adapter.store.records import SignedReceipt

if TYPE_CHECKING:
    from job_manager_adapter.services.dispatch import Dispatcher

MOST_TOGETHER = 256
"""Under one signature: each doubling adds 43 characters to every receipt."""


@dataclass(slots=True)
class Draft:
    """A receipt without its signature."""

    id: str
    pilot: Pilot
    lease: Lease
    cpu_seconds: float
    granted: float
    accepted_at: float

    def canonical(self, key: str) -> str:
        """As `protocol.receipt.Statement.canonical`; nothing in it has to be quoted."""
        lease, pilot = self.lease, self.pilot
        return (
            f'{{"accepted_at":{self.accepted_at!r},"attempt":{lease.attempt}'
            f',"cpu_seconds":{self.cpu_seconds!r},"enrolment":"{pilot.enrolment}"'
            f',"experiment":"{lease.klass.experiment}","granted":{self.granted!r}'
            f',"id":"{self.id}","job":"{lease.job}","key":"{key}"'
            f',"launcher":"{pilot.launcher_key}","leased_at":{float(lease.leased_at)!r}'
            f',"pilot":"{pilot.id}","version":1}}'
        )


class Receipts:
    def __init__(self, clock: Clock, ids: Ids, signer: Signer) -> None:
        self._clock = clock
        self._ids = ids
        self._signer = signer

    def draft(self, pilot: Pilot, lease: Lease, report: Report) -> Draft | None:
        """None for an attempt that earns nothing."""
        if report.outcome is not Outcome.SUCCEEDED:
            return None
        wall = self._clock.monotonic() - lease.since
        cores = lease.klass.requirements.cores
        cpu = float(credit.accepted_cpu(report.usage.cpu_seconds, wall, cores))
        granted = credit.granted(Outcome.SUCCEEDED, cpu, lease.reference_cpu_seconds)
        return Draft(self._ids.make("r"), pilot, lease, cpu, granted, self._clock.time())

    def sign(self, drafts: Sequence[Draft]) -> list[SignedReceipt]:
        """Those of one commit share signatures."""
        signed: list[SignedReceipt] = []
        for start in range(0, len(drafts), MOST_TOGETHER):
            signed += self._together(drafts[start : start + MOST_TOGETHER])
        return signed

    def _together(self, drafts: Sequence[Draft]) -> list[SignedReceipt]:
        texts = [draft.canonical(self._signer.public_key) for draft in drafts]
        if len(texts) == 1:
            return [_signed(drafts[0], texts[0], self._signer.sign(texts[0].encode()))]
        root, ways = tree([text.encode() for text in texts])
        signature = self._signer.sign(root_statement(root))
        return [
            _signed(draft, text, signature, f',"proof":"{base64url(way)}"')
            for draft, text, way in zip(drafts, texts, ways, strict=True)
        ]


def _signed(draft: Draft, statement: str, signature: str, proof: str = "") -> SignedReceipt:
    return SignedReceipt(
        draft.id,
        draft.lease.job,
        draft.lease.klass.experiment,
        draft.pilot.launcher_key,
        draft.granted,
        draft.cpu_seconds,
        f'{{"statement":{statement},"signature":"{signature}"{proof}}}',
    )


async def tell_due(dispatcher: "Dispatcher", pilot: Pilot) -> None:
    """Puts what its launcher is not known to have kept into the pilot's outbox.

    For when the answer to a report's commit was lost, or another manager had it.
    """
    due = await read_due(dispatcher.store, pilot.launcher_key)
    put_due(dispatcher.outbox(pilot.id), due)
    dispatcher.wake(pilot.id)


async def read_due(store: Store, launcher_key: str) -> list[Receipt]:
    """One more than an outbox takes at a time, so that it knows of it."""
    return await store.receipts_due(launcher_key, MAX_RECEIPTS + 1)


def put_due(outbox: Outbox, due: Sequence[Receipt]) -> None:
    outbox.more_receipts = False
    for receipt in due:
        outbox.add_receipt(receipt.statement.id, receipt.model_dump_json())
