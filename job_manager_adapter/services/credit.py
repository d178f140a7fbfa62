"""Use cases of credit: the ledger and its receipts."""

from copilot_agent.protocol.receipt import Receipt
from job_manager_adapter.services.principals import Principal
from job_manager_adapter.views import CreditView, Page


class Credit:
    async def receipts(
        self, principal: Principal, cursor: str | None = None, limit: int = 100
    ) -> Page[Receipt]:
        """Oldest first; an experiment sees those of its own jobs."""
        raise NotImplementedError

    async def summary(self, principal: Principal) -> CreditView:
        raise NotImplementedError
