"""The built-in queue: jobs come through the manager's own API, and its store is the scheduler."""

from collections.abc import Mapping, Sequence

from job_manager_adapter.adapters.base import Finding, Result, Room, SourcedJob


class QueueAdapter:
    """Has no jobs of its own and nobody to tell, so every call is a no-op."""

    poll_seconds: float | None = None

    def __init__(self, experiment: str, options: Mapping[str, object]) -> None:
        """Raises ValueError for any option: there are none."""
        if options:
            raise ValueError(
                f"experiments.{experiment}: the queue has no option {min(options)!r}; remove it"
            )
        self._experiment = experiment

    async def start(self) -> None: ...

    async def close(self) -> None: ...

    async def fetch(self, room: Sequence[Room]) -> list[SourcedJob]:
        del room
        return []

    async def adopted(self, upstream_ids: Sequence[str]) -> None: ...

    async def started(self, upstream_id: str, host: str) -> None: ...

    async def renew(self, upstream_ids: Sequence[str]) -> None: ...

    async def finished(self, upstream_id: str, result: Result) -> None: ...

    async def cancelled(self) -> list[str]:
        return []

    async def doctor(self) -> list[Finding]:
        return [Finding(f"queue of {self._experiment}", True, "built in, nothing to connect to")]
