"""Routes of receipts and credit."""

from pydantic import AwareDatetime

from copilot_agent.protocol.receipt import Receipt
from job_manager_adapter.api.fleet import PageQuery
from job_manager_adapter.api.route import ALL_ROLES, Call, Result, Route
from job_manager_adapter.views import CreditView, EnrolmentCreditView, Page


class CreditQuery(PageQuery):
    since: AwareDatetime | None = None
    until: AwareDatetime | None = None


async def receipts(call: Call[None, PageQuery]) -> Result:
    return await call.services.credit.receipts(call.principal, call.query.cursor, call.query.limit)


async def credit(call: Call[None, None]) -> Result:
    return await call.services.credit.summary(call.principal)


async def by_enrolment(call: Call[None, CreditQuery]) -> Result:
    query = call.query
    return await call.services.credit.by_enrolment(
        call.principal, query.since, query.until, query.cursor, query.limit
    )


ROUTES = (
    Route(
        "GET", "/api/v1/receipts", receipts, "Receipts, oldest first", ALL_ROLES,
        query=PageQuery, reply=Page[Receipt],
    ),
    Route("GET", "/api/v1/credit", credit, "Sums of the ledger", ALL_ROLES, reply=CreditView),
    Route(
        "GET", "/api/v1/credit/enrolments", by_enrolment, "Credit by enrolment and experiment",
        ALL_ROLES, query=CreditQuery, reply=Page[EnrolmentCreditView],
    ),
)  # fmt: skip
