"""Use cases of hosts."""

from job_manager_adapter.services.principals import Principal
from job_manager_adapter.views import BanRequest, HostView, Page


class Hosts:
    async def list(
        self, principal: Principal, cursor: str | None = None, limit: int = 100
    ) -> Page[HostView]:
        raise NotImplementedError

    async def get(self, principal: Principal, host: str) -> HostView:
        raise NotImplementedError

    async def ban(self, principal: Principal, host: str, request: BanRequest) -> HostView:
        """Bans (retires its pilots, releases their leases uncharged) or takes the ban back."""
        raise NotImplementedError
