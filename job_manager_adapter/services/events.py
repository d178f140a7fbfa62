"""The event stream: a bounded journal in the database, and live subscribers."""

from collections.abc import AsyncIterator

from job_manager_adapter.services.principals import Principal
from job_manager_adapter.views import Event


class Events:
    def subscribe(self, principal: Principal, after: int | None = None) -> AsyncIterator[Event]:
        """Events the caller may see, from the one after `after` (None: from now), for ever.

        A subscriber that falls far behind is caught up from the journal; ids have gaps.
        """
        raise NotImplementedError
