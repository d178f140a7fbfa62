"""Use cases of credit: the ledger and its receipts."""

from datetime import datetime

from copilot_agent.protocol.receipt import Receipt
from job_manager_adapter.services.context import Signer
from job_manager_adapter.services.cursors import number, pair
from job_manager_adapter.services.principals import Principal
from job_manager_adapter.services.times import moment
from job_manager_adapter.store.base import Store
from job_manager_adapter.store.credit_records import CreditQuery, CreditRow
from job_manager_adapter.views import CreditView, EnrolmentCreditView, Page, Role


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

    async def by_enrolment(
        self,
        principal: Principal,
        since: datetime | None = None,
        until: datetime | None = None,
        cursor: str | None = None,
        limit: int = 100,
    ) -> Page[EnrolmentCreditView]:
        """Receipts accepted from `since` to before `until`, summed up."""
        query = CreditQuery(
            experiment=principal.scope(None),
            since=since.timestamp() if since else None,
            until=until.timestamp() if until else None,
            after=pair(cursor) or ("", ""),
            limit=limit,
        )
        rows = await self._store.credit(query)
        more = f"{rows[-1].enrolment}.{rows[-1].experiment}" if len(rows) == limit else None
        shown = principal.role is Role.OPERATOR
        return Page(items=tuple(_view(row, shown) for row in rows), next_cursor=more)

    async def summary(self, principal: Principal) -> CreditView:
        ledger = await self._store.ledger(principal.scope(None))
        return CreditView(
            granted=ledger.granted,
            receipts=ledger.receipts,
            cpu_seconds=ledger.cpu_seconds,
            manager_key=self._signer.public_key,
        )


def _view(row: CreditRow, label: bool) -> EnrolmentCreditView:
    return EnrolmentCreditView(
        enrolment=row.enrolment,
        experiment=row.experiment,
        label=row.label if label else "",
        granted=row.granted,
        cpu_seconds=row.cpu_seconds,
        receipts=row.receipts,
        first_accepted_at=moment(row.first),
        last_accepted_at=moment(row.last),
    )
