"""Use cases of enrolment secrets. The command line uses them directly on the store."""

from job_manager_adapter.views import EnrolmentView


class Enrolments:
    async def create(
        self,
        *,
        count: int = 1,
        expires_seconds: float = 30 * 86400.0,
        launchers_allowed: int = 1,
        label: str = "",
    ) -> list[EnrolmentView]:
        """`secret` is set in these views only; the store has its SHA-256."""
        raise NotImplementedError

    async def list(self) -> list[EnrolmentView]:
        raise NotImplementedError

    async def revoke(self, enrolment: str) -> EnrolmentView:
        """No new boots with it; pilots that live go on. Raises NotFoundError."""
        raise NotImplementedError
