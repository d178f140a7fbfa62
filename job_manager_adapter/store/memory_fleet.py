"""Pilots, hosts, enrolments, receipts, tokens and the journal in memory."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

from copilot_agent.protocol.errors import ErrorCode
from copilot_agent.protocol.job import FailureClass
from copilot_agent.protocol.receipt import Receipt, Statement
from job_manager_adapter.core.attempts import Ending
from job_manager_adapter.store import records as r
from job_manager_adapter.store.credit_records import CreditQuery, CreditRow
from job_manager_adapter.store.fleet_records import (
    DrainRow,
    Enrolled,
    EnrolmentRow,
    HostRow,
    NewPilot,
    PilotChange,
    PilotRow,
    Retire,
)


class MemoryFleet:
    """The half of the memory store that is not about jobs."""

    def __init__(self) -> None:
        self._enrolments: dict[str, EnrolmentRow] = {}
        self._boots: dict[tuple[str, str], int] = {}
        self._hosts: dict[str, HostRow] = {}
        self._pilots: dict[str, PilotRow] = {}
        self._drains: dict[str, DrainRow] = {}
        self._receipts: list[Receipt] = []
        self._kept: set[str] = set()
        self._tokens: dict[str, r.TokenRow] = {}
        self._journal: list[r.JournalEntry] = []

    # What the other half does

    def release_one(self, item: r.Release) -> r.Released:
        raise NotImplementedError

    def held_by(self, pilot: str) -> list[tuple[str, int]]:
        raise NotImplementedError

    # Enrolment

    async def enrol(self, many: Sequence[NewPilot]) -> list[Enrolled]:
        return [self._enrol(item) for item in many]

    def _enrol(self, item: NewPilot) -> Enrolled:
        enrolment = next(
            (e for e in self._enrolments.values() if e.secret_sha256 == item.secret_sha256), None
        )
        host = next((h for h in self._hosts.values() if h.launcher_key == item.launcher_key), None)
        refusal = _check(enrolment, host, item.at)
        if refusal or enrolment is None:
            return refusal or _refused("unknown secret")
        host_id = host.id if host else item.host
        if any(
            (row.host, row.key) == (host_id, item.key) and row.seen_at is not None
            for row in self._pilots.values()
        ):
            return _refused("this pilot's key was enrolled before", ErrorCode.CONFLICT)
        if host_id not in enrolment.hosts and len(enrolment.hosts) >= enrolment.launchers_allowed:
            return _refused("the secret is bound to another launcher")
        boots = self._boots.get((enrolment.id, host_id), 0)
        if boots >= item.max_boots:
            return _refused(f"the launcher has used this secret for {item.max_boots} boots")
        self._boots[enrolment.id, host_id] = boots + 1
        bound = tuple(sorted({*enrolment.hosts, host_id}))
        self._enrolments[enrolment.id] = replace(enrolment, hosts=bound)
        self._hosts[host_id] = _booted(host, host_id, item, enrolment)
        return self._replace(item, host_id, enrolment.id)

    def _replace(self, item: NewPilot, host: str, enrolment: str) -> Enrolled:
        earlier = tuple(p.id for p in self._pilots.values() if p.host == host and not p.retired)
        released = self._retire(
            Retire(
                earlier,
                FailureClass.VOLUNTEER_LEFT,
                "its launcher started a new pilot",
                item.at,
            )
        )
        self._pilots[item.id] = PilotRow(
            item.id, host, enrolment, item.key, item.launcher_key, item.capabilities, item.at
        )
        return Enrolled(None, "", host, enrolment, earlier, tuple(released))

    # Pilots and hosts

    async def retire(self, many: Sequence[Retire]) -> list[list[r.Released]]:
        return [self._retire(item) for item in many]

    def _retire(self, item: Retire) -> list[r.Released]:
        released = []
        for pilot in item.pilots:
            self._drains.pop(pilot, None)
            if pilot in self._pilots:
                self._pilots[pilot] = replace(self._pilots[pilot], retired=True, paused=False)
            released += [
                self.release_one(r.Release(job, attempt, item.failure_class, item.message, item.at))
                for job, attempt in self.held_by(pilot)
            ]
        return released

    async def change_pilots(self, many: Sequence[PilotChange]) -> None:
        for change in many:
            row = self._pilots.get(change.pilot)
            if row is None:
                continue
            fields = {
                name: value
                for name in ("capabilities", "paused", "seen_at")
                if (value := getattr(change, name)) is not None
            }
            self._pilots[row.id] = replace(row, **fields)
            if change.seen_at is not None:
                self._hosts[row.host] = replace(self._hosts[row.host], seen_at=change.seen_at)

    async def pilot(self, pilot: str) -> PilotRow | None:
        row = self._pilots.get(pilot)
        return replace(row, banned=self._hosts[row.host].banned) if row else None

    def host_of(self, pilot: str) -> str:
        return self._pilots[pilot].host if pilot in self._pilots else ""

    async def pilots(
        self,
        *,
        host: str | None = None,
        retired: bool | None = None,
        before: str | None = None,
        limit: int = 100,
    ) -> list[PilotRow]:
        rows = [
            replace(row, banned=self._hosts[row.host].banned)
            for _, row in sorted(self._pilots.items(), reverse=True)
            if host in (None, row.host)
            and retired in (None, row.retired)
            and (before is None or row.id < before)
        ]
        return rows[:limit]

    async def drain(self, many: Sequence[DrainRow]) -> None:
        self._drains.update({row.scope: row for row in many})

    async def undrain(self, many: Sequence[str]) -> list[bool]:
        return [self._drains.pop(scope, None) is not None for scope in many]

    async def drains(self) -> list[DrainRow]:
        return [row for _, row in sorted(self._drains.items())]

    async def ban(self, host: str, reason: str, banned: bool) -> bool:
        if host not in self._hosts:
            return False
        self._hosts[host] = replace(self._hosts[host], banned=banned, ban_reason=reason)
        return True

    async def host(self, host: str) -> HostRow | None:
        return self._hosts.get(host)

    async def hosts(self, *, before: str | None = None, limit: int = 100) -> list[HostRow]:
        rows = [
            row
            for name, row in sorted(self._hosts.items(), reverse=True)
            if before is None or name < before
        ]
        return rows[:limit]

    async def add_enrolments(self, many: Sequence[EnrolmentRow]) -> None:
        self._enrolments.update({row.id: row for row in many})

    async def revoke_enrolment(self, enrolment: str) -> bool:
        row = self._enrolments.get(enrolment)
        if row is not None:
            self._enrolments[enrolment] = replace(row, revoked=True)
        return row is not None

    async def enrolments(self) -> list[EnrolmentRow]:
        return [self._enrolments[name] for name in sorted(self._enrolments)]

    # Receipts

    def count_result(self, pilot: str, ending: Ending) -> None:
        row = self._pilots.get(pilot)
        if row is None or not (ending.succeeded or ending.failed):
            return
        name = "jobs_succeeded" if ending.succeeded else "jobs_failed"
        self._pilots[pilot] = replace(row, **{name: getattr(row, name) + 1})

    def grant(self, signed: r.SignedReceipt) -> None:
        receipt = Receipt.model_validate_json(signed.body)
        self._receipts.append(receipt)
        statement = receipt.statement
        for name, host in self._hosts.items():
            if host.launcher_key == statement.launcher:
                self._hosts[name] = replace(
                    host,
                    jobs_succeeded=host.jobs_succeeded + 1,
                    granted=host.granted + statement.granted,
                )

    async def receipts(
        self, experiment: str | None, after: int, limit: int
    ) -> list[tuple[int, Receipt]]:
        rows = [
            (number, receipt)
            for number, receipt in enumerate(self._receipts, start=1)
            if number > after and experiment in (None, receipt.statement.experiment)
        ]
        return rows[:limit]

    async def receipts_due(self, launcher_key: str, limit: int) -> list[Receipt]:
        due = [
            receipt
            for receipt in self._receipts
            if receipt.statement.launcher == launcher_key and receipt.statement.id not in self._kept
        ]
        return due[:limit]

    async def receipts_kept(self, launcher_key: str, ids: Sequence[str]) -> None:
        theirs = {
            receipt.statement.id for receipt in await self.receipts_due(launcher_key, 1 << 40)
        }
        self._kept |= theirs.intersection(ids)

    async def ledger(self, experiment: str | None) -> r.Ledger:
        mine = [receipt.statement for _, receipt in await self.receipts(experiment, 0, 1 << 40)]
        return r.Ledger(
            sum(one.granted for one in mine), len(mine), sum(one.cpu_seconds for one in mine)
        )

    async def credit(self, query: CreditQuery) -> list[CreditRow]:
        groups: dict[tuple[str, str], list[Statement]] = defaultdict(list)
        for receipt in self._receipts:
            one = receipt.statement
            key = (one.enrolment, one.experiment)
            if key > query.after and _asked(query, one):
                groups[key].append(one)
        return [self._credit(key, groups[key]) for key in sorted(groups)[: query.limit]]

    def _credit(self, key: tuple[str, str], many: Sequence[Statement]) -> CreditRow:
        enrolment, experiment = key
        row = self._enrolments.get(enrolment)
        return CreditRow(
            enrolment,
            experiment,
            row.label if row else "",
            sum(one.granted for one in many),
            sum(one.cpu_seconds for one in many),
            len(many),
            min(one.accepted_at for one in many),
            max(one.accepted_at for one in many),
        )

    # Tokens and journal

    async def add_token(self, token: r.TokenRow) -> None:
        self._tokens[token.id] = token

    async def revoke_token(self, token_id: str) -> bool:
        row = self._tokens.get(token_id)
        if row is not None:
            self._tokens[token_id] = replace(row, revoked=True)
        return row is not None

    async def tokens(self) -> list[r.TokenRow]:
        return [self._tokens[name] for name in sorted(self._tokens)]

    async def token(self, sha256: str) -> r.TokenRow | None:
        return next((row for row in self._tokens.values() if row.sha256 == sha256), None)

    async def append_journal(self, entry: r.JournalEntry, keep: int) -> int:
        self._journal = [old for old in self._journal if old.last >= entry.last - keep] + [entry]
        return entry.first

    async def journal(self, after: int, limit: int) -> list[r.JournalEntry]:
        return [entry for entry in self._journal if entry.last > after][:limit]

    async def journal_last(self) -> int:
        return self._journal[-1].last if self._journal else 0


def _refused(reason: str, code: ErrorCode = ErrorCode.ENROLMENT_REFUSED) -> Enrolled:
    return Enrolled(code, reason)


def _check(enrolment: EnrolmentRow | None, host: HostRow | None, at: float) -> Enrolled | None:
    if enrolment is None:
        return _refused("unknown secret")
    if enrolment.revoked:
        return _refused("the secret was revoked")
    if at >= enrolment.expires_at:
        return _refused("the secret has expired")
    if host is not None and host.banned:
        reason = f"the host is banned: {host.ban_reason or 'no reason given'}"
        return _refused(reason, ErrorCode.HOST_BANNED)
    return None


def _booted(host: HostRow | None, host_id: str, item: NewPilot, enrolment: EnrolmentRow) -> HostRow:
    if host is None:
        return HostRow(
            id=host_id,
            launcher_key=item.launcher_key,
            enrolment=enrolment.id,
            label=enrolment.label,
            banned=False,
            ban_reason="",
            boots=1,
            jobs_succeeded=0,
            granted=0.0,
            seen_at=item.at,
        )
    return replace(
        host,
        enrolment=enrolment.id,
        label=enrolment.label,
        boots=host.boots + 1,
        seen_at=item.at,
    )


def _asked(query: CreditQuery, one: Statement) -> bool:
    return (
        query.experiment in (None, one.experiment)
        and (query.since is None or one.accepted_at >= query.since)
        and (query.until is None or one.accepted_at < query.until)
    )
