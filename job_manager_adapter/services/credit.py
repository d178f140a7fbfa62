"""Use cases of credit: the ledger and its receipts."""

from copilot_agent.protocol.receipt import Receipt
from job_manager_adapter.services.context import Signer
from job_manager_adapter.services.cursors import number
from job_manager_adapter.services.principals import Principal
from job_manager_adapter.store.base import Store
from job_manager_adapter.views import CreditView, Page


class Credit:
    def __init__(self, store: Store, signer: Signer) -> None:
        self._store = store
        self._signer = signer

    async def receipts(
        self, principal: Principal, cursor: str | None = None, limit: int = 100
    ) -> Page[Receipt]:
        """Oldest first; an experiment sees those of its own jobs."""
        rows = await self._store.receipts(principal.scope(None), number(cursor) or 0, limit)
        more = str(rows[-1][0]) if len(rows) == limit else None
        return Page(items=tuple(receipt for _, receipt in rows), next_cursor=more)

    async def summary(self, principal: Principal) -> CreditView:
        ledger = await self._store.ledger(principal.scope(None))
        return CreditView(
            granted=ledger.granted,
            receipts=ledger.receipts,
            cpu_seconds=ledger.cpu_seconds,
            manager_key=self._signer.public_key,
        )
