"""Use cases of enrolment secrets. The command line uses them directly on the store."""

import hashlib

from job_manager_adapter.services.context import Clock, Ids
from job_manager_adapter.services.errors import NotFoundError
from job_manager_adapter.services.times import moment
from job_manager_adapter.store.base import Store
from job_manager_adapter.store.fleet_records import EnrolmentRow
from job_manager_adapter.views import EnrolmentView

_FOR_EVER = 100 * 365 * 86400.0


class Enrolments:
    def __init__(self, store: Store, clock: Clock, ids: Ids) -> None:
        self._store = store
        self._clock = clock
        self._ids = ids

    async def create(
        self,
        *,
        count: int = 1,
        expires_seconds: float = 30 * 86400.0,
        launchers_allowed: int = 1,
        label: str = "",
    ) -> list[EnrolmentView]:
        """`secret` is set in these views only; the store has its SHA-256."""
        now = self._clock.time()
        secrets = [self._ids.secret() for _ in range(count)]
        rows = [
            EnrolmentRow(
                id=self._ids.make("e"),
                secret_sha256=hashlib.sha256(secret.encode()).hexdigest(),
                label=label,
                created_at=now,
                expires_at=now + expires_seconds,
                launchers_allowed=launchers_allowed,
            )
            for secret in secrets
        ]
        await self._store.add_enrolments(rows)
        return [_view(row, secret) for row, secret in zip(rows, secrets, strict=True)]

    async def ensure(self, secret: str, *, label: str) -> None:
        """Makes one that never expires, for one launcher, unless this secret has been given out."""
        digest = hashlib.sha256(secret.encode()).hexdigest()
        if any(row.secret_sha256 == digest for row in await self._store.enrolments()):
            return
        now = self._clock.time()
        row = EnrolmentRow(
            id=self._ids.make("e"),
            secret_sha256=digest,
            label=label,
            created_at=now,
            expires_at=now + _FOR_EVER,
            launchers_allowed=1,
        )
        await self._store.add_enrolments([row])

    async def list(self) -> list[EnrolmentView]:
        return [_view(row) for row in await self._store.enrolments()]

    async def revoke(self, enrolment: str) -> EnrolmentView:
        """No new boots with it; pilots that live go on. Raises NotFoundError."""
        if await self._store.revoke_enrolment(enrolment):
            for row in await self._store.enrolments():
                if row.id == enrolment:
                    return _view(row)
        raise NotFoundError(
            f"no enrolment {enrolment}", remedy="see `copilot-manager enrolment list`"
        )


def _view(row: EnrolmentRow, secret: str | None = None) -> EnrolmentView:
    return EnrolmentView(
        id=row.id,
        label=row.label,
        expires_at=moment(row.expires_at),
        launchers_allowed=row.launchers_allowed,
        hosts=row.hosts,
        revoked=row.revoked,
        secret=secret,
    )
