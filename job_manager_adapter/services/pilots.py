"""Use cases of pilots: enrolment, renewal, the conversation, and what operators do with them."""

import hashlib
import logging
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, cast

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from copilot_agent.protocol.capabilities import Capabilities
from copilot_agent.protocol.enrolment import EnrolRequest, enrolment_statement, renewal_statement
from copilot_agent.protocol.errors import ErrorCode
from copilot_agent.protocol.frames import Policy, Wants
from copilot_agent.protocol.job import FailureClass, JobState
from job_manager_adapter.core.fleet import Pilot
from job_manager_adapter.services import takeback
from job_manager_adapter.services.context import Signer, from_base64url
from job_manager_adapter.services.conversation import Conversation
from job_manager_adapter.services.dispatch import Dispatcher
from job_manager_adapter.services.drains import Draining
from job_manager_adapter.services.errors import (
    ConflictError,
    NotFoundError,
    RefusedError,
    SessionClosedError,
    UnauthenticatedError,
)
from job_manager_adapter.services.principals import Principal
from job_manager_adapter.services.session import PilotSession
from job_manager_adapter.services.times import moment, moment_or_none
from job_manager_adapter.store.fleet_records import NewPilot, PilotRow, Retire
from job_manager_adapter.views import DrainRequest, Page, PilotState, PilotView

log = logging.getLogger(__name__)

_OPEN = frozenset({JobState.LEASED, JobState.RUNNING})
Carrier = Literal["websocket", "poll", "xmpp", "copilot1"]
_ASK_AGAIN = "get a fresh enrolment secret from the operator"
_REMEDIES = {
    ErrorCode.HOST_BANNED: "ask the operator",
    ErrorCode.CONFLICT: "make a new key for the pilot, and let the launcher vouch for it",
}
MAX_NONCES = 100_000
MAX_REFUSALS_TOLD = 30
"""A minute, of enrolments."""


@dataclass(frozen=True)
class Enrolled:
    """The caller adds the access token (JWT, sub = pilot) to make an EnrolReply."""

    pilot: str
    host: str
    policy: Policy
    manager_key: str
    server_time: float


class OpenAttempt(NamedTuple):
    pilot: str
    job: str
    attempt: int
    leased_at: float
    """Unix time."""


class Pilots:
    def __init__(
        self,
        dispatcher: Dispatcher,
        conversation: Conversation,
        draining: Draining,
        signer: Signer,
    ) -> None:
        self._dispatcher = dispatcher
        self._draining = draining
        self._conversation = conversation
        self._signer = signer
        self._nonces: dict[str, tuple[str, float]] = {}
        """Nonce → (pilot, good until), oldest first."""
        self._refusals: deque[float] = deque()
        """When the latest refusals were told."""

    # Enrolment and tokens

    async def enrol(self, request: EnrolRequest) -> Enrolled:
        """Raises RefusedError with `enrolment_refused`, `host_banned` or `conflict` (used key)."""
        dispatcher = self._dispatcher
        secret = hashlib.sha256(request.secret.encode()).hexdigest()
        statement = enrolment_statement(secret, request.pilot_key)
        if not signed(request.launcher_key, statement, request.signature):
            raise self._refused(request, ErrorCode.ENROLMENT_REFUSED, "the signature is wrong")
        pilot = NewPilot(
            id=dispatcher.ids.make("p"),
            key=request.pilot_key,
            launcher_key=request.launcher_key,
            secret_sha256=secret,
            host=dispatcher.ids.make("h"),
            capabilities=request.capabilities,
            at=dispatcher.clock.time(),
            max_boots=dispatcher.config.max_boots,
        )
        (result,) = await dispatcher.store.enrol([pilot])
        if result.refusal is not None:
            raise self._refused(request, result.refusal, result.reason)
        takeback.dismiss(dispatcher, result.superseded, ErrorCode.PILOT_RETIRED, result.released)
        dispatcher.events.emit("pilot", pilot.id, "enrolled", detail=result.host)
        dispatcher.tallies["pilots_registered"] += 1
        return Enrolled(
            pilot.id,
            result.host,
            dispatcher.policy,
            self._signer.public_key,
            dispatcher.clock.time(),
        )

    def _refused(self, request: EnrolRequest, code: ErrorCode, reason: str) -> RefusedError:
        if self._worth_telling():
            self._dispatcher.events.emit(
                "host", request.launcher_key, "enrolment_refused", detail=reason
            )
            log.warning("enrolment of launcher %s refused: %s", request.launcher_key, reason)
        return RefusedError(reason, code=code, remedy=_REMEDIES.get(code, _ASK_AGAIN))

    def _worth_telling(self) -> bool:
        """Anybody may knock; the journal and the log are not theirs to fill."""
        now = self._dispatcher.clock.monotonic()
        while self._refusals and self._refusals[0] < now - 60.0:
            self._refusals.popleft()
        if len(self._refusals) >= MAX_REFUSALS_TOLD:
            return False
        self._refusals.append(now)
        return True

    async def challenge(self, pilot: str) -> str:
        """A nonce, good for one renewal within 5 minutes. Raises UnauthenticatedError."""
        await self._admitted(pilot)
        now = self._dispatcher.clock.monotonic()
        self._forget_nonces(now)
        nonce = self._dispatcher.ids.secret()
        self._nonces[nonce] = (pilot, now + self._dispatcher.config.nonce_seconds)
        return nonce

    def _forget_nonces(self, now: float) -> None:
        while self._nonces:
            oldest = next(iter(self._nonces))
            if self._nonces[oldest][1] > now and len(self._nonces) < MAX_NONCES:
                return
            del self._nonces[oldest]

    async def renew(self, pilot: str, nonce: str, signature: str) -> Policy:
        """Checks the pilot's signature; the caller then mints a token.

        Raises UnauthenticatedError, or RefusedError with `pilot_retired` or `host_banned`.
        """
        owner, until = self._nonces.pop(nonce, ("", 0.0))
        if owner != pilot or until < self._dispatcher.clock.monotonic():
            raise UnauthenticatedError("the nonce is unknown or old", remedy="ask for another one")
        row = await self._admitted(pilot)
        if not signed(row.key, renewal_statement(pilot, nonce), signature):
            raise UnauthenticatedError("the signature is not the pilot's", remedy="enrol again")
        return self._dispatcher.policy

    async def _admitted(self, pilot: str) -> PilotRow:
        row = await self._dispatcher.store.pilot(pilot)
        if row is None:
            raise UnauthenticatedError("no such pilot", remedy="enrol again")
        if row.banned:
            raise RefusedError("the host is banned", code=ErrorCode.HOST_BANNED)
        if row.retired:
            raise RefusedError("this pilot was retired", code=ErrorCode.PILOT_RETIRED)
        return row

    # The conversation

    async def attach(
        self, pilot: str, carrier: Carrier, experiments: frozenset[str] | None = None
    ) -> PilotSession:
        """A new session; an older one of the same pilot is closed as superseded.

        With `experiments` it is offered only their jobs.

        Raises UnauthenticatedError for an unknown pilot, RefusedError with `pilot_retired` or
        `host_banned`.
        """
        session = await self._conversation.attach(await self._admitted(pilot), carrier, experiments)
        try:
            await self._admitted(pilot)  # what was committed meanwhile did not find the pilot here
        except RefusedError as error:
            takeback.dismiss(self._dispatcher, (pilot,), error.code, ())
            raise
        return session

    def session(self, pilot: str, number: int) -> PilotSession:
        """The open session of that number, for carriers without a connection (long-poll).

        Raises SessionClosedError: `session_superseded` when a newer one exists, `unavailable` when
        there is none (the manager was restarted); the pilot then comes back soon, not in a minute.
        """
        session = self._dispatcher.sessions.get(pilot)
        if session is None or session.number != number:
            code = ErrorCode.UNAVAILABLE if session is None else ErrorCode.SESSION_SUPERSEDED
            raise SessionClosedError(f"session {number} is over", remedy="attach again", code=code)
        return session

    async def require_open(self, job: str, attempt: int) -> None:
        """Raises RefusedError with `link_invalid`: the attempt has ended, nothing is taken for it.

        A pilot's link lives for an hour, its right to the attempt perhaps not.
        """
        if (job, attempt) in self._dispatcher.leases:
            return
        row = await self._dispatcher.store.job(job)  # another manager may have its lease
        if row is None or row.attempt != attempt or row.state not in _OPEN:
            raise RefusedError(
                f"attempt {attempt} of job {job} has ended",
                code=ErrorCode.LINK_INVALID,
                remedy="forget it; a new attempt gets links of its own",
            )

    def has_job_for(self, capabilities: Capabilities, experiments: frozenset[str]) -> bool:
        """Whether a job waits that a pilot like this could take now. Nothing is claimed."""
        idle = Pilot(
            *("", "", "", "", capabilities, frozenset(capabilities.cpu_flags)),
            wants=Wants(
                cores=capabilities.cores,
                memory_mib=capabilities.memory_mib,
                disk_mib=capabilities.disk_mib,
            ),
            experiments=experiments,
        )
        drained = self._dispatcher.drains.of("", "") is not None
        return not drained and self._dispatcher.matcher.has_job_for(idle.room())

    def watched(self, job: str, attempt: int) -> OpenAttempt | None:
        """An attempt whose lease this manager keeps."""
        lease = self._dispatcher.leases.get((job, attempt))
        return OpenAttempt(lease.pilot, job, attempt, lease.leased_at) if lease else None

    def unattended(self) -> Sequence[OpenAttempt]:
        """Those watched for whose pilots nobody speaks here."""
        return [
            OpenAttempt(lease.pilot, lease.job, lease.attempt, lease.leased_at)
            for lease in self._dispatcher.leases
            if lease.pilot not in self._dispatcher.sessions
        ]

    # What operators see and do

    async def get(self, principal: Principal, pilot: str) -> PilotView:
        """Raises NotFoundError."""
        principal.require_operator()
        return self._view(await self._row(pilot))

    async def _row(self, pilot: str) -> PilotRow:
        row = await self._dispatcher.store.pilot(pilot)
        if row is None:
            raise NotFoundError(f"no pilot {pilot}", remedy="see `copilot pilot list`")
        return row

    async def list(
        self,
        principal: Principal,
        state: PilotState | None = None,
        host: str | None = None,
        cursor: str | None = None,
        limit: int = 100,
    ) -> Page[PilotView]:
        """Newest first."""
        principal.require_operator()
        retired = None if state is None else state is PilotState.RETIRED
        views: list[PilotView] = []
        while len(views) < limit:
            rows = await self._dispatcher.store.pilots(
                host=host, retired=retired, before=cursor, limit=500
            )
            for row in rows:
                cursor = row.id
                view = self._view(row)
                if state is None or view.state is state:
                    views.append(view)
                if len(views) == limit:
                    return Page(items=tuple(views), next_cursor=cursor)
            if len(rows) < 500:
                break
        return Page(items=tuple(views))

    def _view(self, row: PilotRow) -> PilotView:
        dispatcher = self._dispatcher
        known = dispatcher.fleet.get(row.id)
        session = dispatcher.sessions.get(row.id)
        seen_at = known.seen_at if known and known.seen_at else row.seen_at
        drain = None if row.retired else dispatcher.drains.of(row.id, row.host)
        return PilotView(
            id=row.id,
            host=row.host,
            state=self._state(row),
            carrier=cast(Carrier, session.carrier) if session else "",
            capabilities=known.capabilities if known else row.capabilities,
            jobs=tuple(lease.job for lease in known.leases.values()) if known else (),
            drained_by=drain.kind if drain else "",
            drain_deadline=moment_or_none(drain.until) if drain else None,
            jobs_succeeded=row.jobs_succeeded,
            jobs_failed=row.jobs_failed,
            enrolled_at=moment(row.enrolled_at),
            seen_at=moment(seen_at) if seen_at else None,
        )

    def _state(self, row: PilotRow) -> PilotState:
        if row.retired:
            return PilotState.RETIRED
        known = self._dispatcher.fleet.get(row.id)
        if known is None or known.elsewhere:
            return self._dispatcher.peers.state(row)
        lease_seconds = self._dispatcher.config.policy.lease_seconds
        return known.state(self._dispatcher.clock.monotonic(), lease_seconds)

    async def drain(self, principal: Principal, pilot: str, request: DrainRequest) -> PilotView:
        """Raises NotFoundError, ConflictError for a retired pilot."""
        principal.require_operator()
        row = await self._row(pilot)
        if row.retired:
            raise ConflictError("this pilot is retired already")
        await self._draining.order(pilot, request)
        state = "undrained" if request.undo else "draining"
        self._dispatcher.events.emit("pilot", pilot, state)
        return self._view(row)

    async def retire(self, principal: Principal, pilot: str) -> PilotView:
        """Its leases are released uncharged at once. Raises NotFoundError."""
        principal.require_operator()
        await self._row(pilot)
        dispatcher = self._dispatcher
        order = Retire(
            (pilot,),
            FailureClass.PREEMPTED,
            "its pilot was retired by an operator",
            dispatcher.clock.time(),
        )
        (released,) = await dispatcher.store.retire([order])
        takeback.dismiss(dispatcher, (pilot,), ErrorCode.PILOT_RETIRED, released)
        return self._view(await self._row(pilot))


def signed(public_key: str, message: bytes, signature: str) -> bool:
    try:
        key = Ed25519PublicKey.from_public_bytes(from_base64url(public_key))
        key.verify(from_base64url(signature), message)
    except (InvalidSignature, ValueError):
        return False
    return True
