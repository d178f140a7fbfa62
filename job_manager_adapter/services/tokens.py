"""Use cases of user tokens; kept as SHA-256. The command line uses them directly on the store."""

import hashlib
from collections.abc import Container

from copilot_agent.protocol.errors import CopilotError, ErrorCode, FieldError
from job_manager_adapter.services.context import Clock, Ids
from job_manager_adapter.services.errors import InvalidError, NotFoundError, UnauthenticatedError
from job_manager_adapter.services.principals import Principal
from job_manager_adapter.services.times import moment, moment_or_none
from job_manager_adapter.store.base import Store
from job_manager_adapter.store.records import TokenRow
from job_manager_adapter.views import Role, TokenView

CACHE_SECONDS = 60.0
_PREFIX = "copilot_"
"""So that secret scanners can find one that leaked."""


class Tokens:
    def __init__(self, store: Store, clock: Clock, ids: Ids, experiments: Container[str]) -> None:
        self._store = store
        self._clock = clock
        self._ids = ids
        self._experiments = experiments
        self._cache: dict[str, tuple[TokenRow, float]] = {}

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
        self._check(role, experiment)
        token = _PREFIX + self._ids.secret()
        now = self._clock.time()
        row = TokenRow(
            id=self._ids.make("t"),
            sha256=_hash(token),
            role=role.value,
            experiment=experiment,
            label=label,
            created_at=now,
            expires_at=None if expires_seconds is None else now + expires_seconds,
        )
        await self._store.add_token(row)
        return _view(row, token)

    def _check(self, role: Role, experiment: str | None) -> None:
        if (role is Role.EXPERIMENT) != (experiment is not None):
            message = "an experiment's token names its experiment, an operator's token none"
            raise InvalidError(message, errors=(FieldError(field="experiment", message=message),))
        if experiment is not None and experiment not in self._experiments:
            raise CopilotError(
                f"unknown experiment {experiment}",
                code=ErrorCode.UNKNOWN_EXPERIMENT,
                remedy=f"add a section [experiments.{experiment}] to the manager's configuration",
            )

    async def list(self) -> list[TokenView]:
        return [_view(row) for row in await self._store.tokens()]

    async def revoke(self, token_id: str) -> TokenView:
        """Takes effect at once in this process, within 60 s in others. Raises NotFoundError."""
        if not await self._store.revoke_token(token_id):
            raise NotFoundError(f"no token {token_id}", remedy="see `copilot-manager token list`")
        self._cache.clear()
        row = next(row for row in await self._store.tokens() if row.id == token_id)
        return _view(row)

    async def authenticate(self, token: str) -> Principal:
        """Raises UnauthenticatedError, or CopilotError with `token_expired`."""
        row = await self._find(_hash(token))
        if row is None or row.revoked:
            raise UnauthenticatedError(
                "this token is unknown or was revoked", remedy="ask the operator for a new one"
            )
        if row.expires_at is not None and self._clock.time() >= row.expires_at:
            raise CopilotError(
                "this token has expired",
                code=ErrorCode.TOKEN_EXPIRED,
                remedy="ask the operator for a new one",
            )
        return Principal(row.id, Role(row.role), row.experiment)

    async def _find(self, sha256: str) -> TokenRow | None:
        now = self._clock.monotonic()
        row, until = self._cache.get(sha256, (None, 0.0))
        if row is not None and now < until:
            return row
        row = await self._store.token(sha256)
        if row is not None:
            self._cache[sha256] = (row, now + CACHE_SECONDS)
        return row


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def _view(row: TokenRow, token: str | None = None) -> TokenView:
    return TokenView(
        id=row.id,
        role=Role(row.role),
        experiment=row.experiment,
        label=row.label,
        created_at=moment(row.created_at),
        expires_at=moment_or_none(row.expires_at),
        revoked=row.revoked,
        token=token,
    )
