"""Use cases of user tokens; kept as SHA-256. The command line uses them directly on the store."""

from job_manager_adapter.services.principals import Principal
from job_manager_adapter.views import Role, TokenView


class Tokens:
    async def create(
        self,
        role: Role,
        experiment: str | None = None,
        *,
        label: str = "",
        expires_seconds: float | None = None,
    ) -> TokenView:
        """`token` is set in this view only. Raises InvalidError if role and experiment disagree,
        CopilotError with `unknown_experiment`."""
        raise NotImplementedError

    async def list(self) -> list[TokenView]:
        raise NotImplementedError

    async def revoke(self, token_id: str) -> TokenView:
        """Takes effect at once in this process, within 60 s in others. Raises NotFoundError."""
        raise NotImplementedError

    async def authenticate(self, token: str) -> Principal:
        """Raises UnauthenticatedError, or CopilotError with `token_expired`."""
        raise NotImplementedError
