"""The client: one object, one noun an attribute."""

from types import TracebackType
from typing import Self

from job_manager_adapter.client.files import Files
from job_manager_adapter.client.fleet import Credit, Fleet, Hosts, Pilots
from job_manager_adapter.client.http import Http
from job_manager_adapter.client.jobs import Jobs
from job_manager_adapter.views import WhoAmI


class Client:
    """Talks to one manager with one token. Use it with `async with`."""

    def __init__(self, url: str, token: str) -> None:
        self._http = Http(url, token)
        self.jobs = Jobs(self._http)
        self.files = Files(self._http)
        self.pilots = Pilots(self._http)
        self.hosts = Hosts(self._http)
        self.fleet = Fleet(self._http)
        self.credit = Credit(self._http)

    async def __aenter__(self) -> Self:
        await self._http.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._http.__aexit__(kind, error, trace)

    async def whoami(self) -> WhoAmI:
        return await self._http.get("api/v1/whoami", WhoAmI)
