"""Changes to pilots, hosts, enrolments, receipts, tokens and the journal, inside the writer."""

import sqlite3
from collections.abc import Sequence

from copilot_agent.protocol.job import FailureClass
from job_manager_adapter.store.fleet_records import (
    DrainRow,
    Enrolled,
    EnrolmentRow,
    NewPilot,
    PilotChange,
    Retire,
)
from job_manager_adapter.store.records import JournalEntry, Release, Released, TokenRow
from job_manager_adapter.store.refusals import check_host, check_key, check_secret, refused
from job_manager_adapter.store.sqlite_jobs import JobWrites
from job_manager_adapter.store.sqlite_sets import write
from job_manager_adapter.store.sqlite_statements import RECEIPTS_KEPT


class FleetWrites:
    """The operations of `store.base.FleetStore` and below that change something."""

    def __init__(self, jobs: JobWrites) -> None:
        self._jobs = jobs

    # Enrolment

    def enrol(self, connection: sqlite3.Connection, many: Sequence[NewPilot]) -> list[Enrolled]:
        return [self._enrol(connection, pilot) for pilot in many]

    def _enrol(self, connection: sqlite3.Connection, pilot: NewPilot) -> Enrolled:
        enrolment = connection.execute(
            "SELECT id, label, expires_at, launchers_allowed, revoked FROM enrolments"
            " WHERE secret_sha256 = ?",
            (pilot.secret_sha256,),
        ).fetchone()
        host = connection.execute(
            "SELECT id, banned, ban_reason FROM hosts WHERE launcher_key = ?",
            (pilot.launcher_key,),
        ).fetchone()
        refusal = check_secret(enrolment, pilot.at) or check_host(host)
        if refusal:
            return refusal
        host_id = host[0] if host else pilot.host
        used = connection.execute(
            "SELECT 1 FROM pilots WHERE host = ? AND key = ? AND seen_at IS NOT NULL",
            (host_id, pilot.key),
        ).fetchone()
        refusal = check_key(used) or self._bind(
            connection, enrolment[0], enrolment[3], host_id, pilot.max_boots
        )
        if refusal:
            return refusal
        connection.execute(
            "INSERT INTO hosts (id, launcher_key, enrolment, label, boots, seen_at)"
            " VALUES (?, ?, ?, ?, 1, ?) ON CONFLICT DO UPDATE SET enrolment = excluded.enrolment,"
            " label = excluded.label, boots = boots + 1, seen_at = excluded.seen_at",
            (host_id, pilot.launcher_key, enrolment[0], enrolment[1], pilot.at),
        )
        return self._replace(connection, pilot, host_id, enrolment[0])

    def _bind(
        self, connection: sqlite3.Connection, enrolment: str, allowed: int, host: str, boots: int
    ) -> Enrolled | None:
        """Counts a boot; the reason of a refusal if there is no place for this launcher."""
        bound = dict(
            connection.execute("SELECT host, boots FROM bindings WHERE enrolment = ?", (enrolment,))
        )
        if host not in bound and len(bound) >= allowed:
            return refused("the secret is bound to another launcher")
        if bound.get(host, 0) >= boots:
            return refused(f"the launcher has used this secret for {boots} boots")
        connection.execute(
            "INSERT INTO bindings VALUES (?, ?, 1) ON CONFLICT DO UPDATE SET boots = boots + 1",
            (enrolment, host),
        )
        return None

    def _replace(
        self, connection: sqlite3.Connection, pilot: NewPilot, host: str, enrolment: str
    ) -> Enrolled:
        earlier = tuple(
            row[0]
            for row in connection.execute(
                "SELECT id FROM pilots WHERE host = ? AND retired = 0", (host,)
            )
        )
        message = "its launcher started a new pilot"
        leaving = Retire(earlier, FailureClass.VOLUNTEER_LEFT, message, pilot.at)
        released = self._retire(connection, leaving)
        connection.execute(
            "INSERT INTO pilots (id, host, enrolment, key, capabilities, enrolled_at)"
            " VALUES (?, ?, ?, ?, ?, ?)",
            (
                pilot.id,
                host,
                enrolment,
                pilot.key,
                pilot.capabilities.model_dump_json(),
                pilot.at,
            ),
        )
        return Enrolled(None, "", host, enrolment, earlier, tuple(released))

    # Pilots and hosts

    def retire(
        self, connection: sqlite3.Connection, many: Sequence[Retire]
    ) -> list[list[Released]]:
        return [self._retire(connection, item) for item in many]

    def _retire(self, connection: sqlite3.Connection, item: Retire) -> list[Released]:
        held = [
            Release(job, attempt, item.failure_class, item.message, item.at)
            for pilot in item.pilots
            for job, attempt in connection.execute(
                "SELECT id, attempt FROM jobs WHERE pilot = ? AND state IN ('leased', 'running')",
                (pilot,),
            ).fetchall()
        ]
        pilots = [(pilot,) for pilot in item.pilots]
        connection.executemany("UPDATE pilots SET retired = 1, paused = 0 WHERE id = ?", pilots)
        connection.executemany("DELETE FROM drains WHERE scope = ?", pilots)
        return self._jobs.release(connection, held)

    def change_pilots(
        self, connection: sqlite3.Connection, many: Sequence[PilotChange]
    ) -> list[None]:
        for change in many:
            capabilities = change.capabilities and change.capabilities.model_dump_json()
            connection.execute(
                "UPDATE pilots SET capabilities = ifnull(?, capabilities),"
                " paused = ifnull(?, paused), seen_at = ifnull(?, seen_at) WHERE id = ?",
                (capabilities, change.paused, change.seen_at, change.pilot),
            )
            if change.seen_at is not None:
                connection.execute(
                    "UPDATE hosts SET seen_at = ? WHERE id ="
                    " (SELECT host FROM pilots WHERE id = ?)",
                    (change.seen_at, change.pilot),
                )
        return [None] * len(many)

    def drain(self, connection: sqlite3.Connection, many: Sequence[DrainRow]) -> list[None]:
        connection.executemany(
            "INSERT OR REPLACE INTO drains (scope, at, until) VALUES (?, ?, ?)",
            [(row.scope, row.at, row.until) for row in many],
        )
        return [None] * len(many)

    def undrain(self, connection: sqlite3.Connection, many: Sequence[str]) -> list[bool]:
        return [
            connection.execute("DELETE FROM drains WHERE scope = ?", (scope,)).rowcount == 1
            for scope in many
        ]

    def ban(
        self, connection: sqlite3.Connection, many: Sequence[tuple[str, str, bool]]
    ) -> list[bool]:
        return [
            connection.execute(
                "UPDATE hosts SET banned = ?, ban_reason = ? WHERE id = ?", (banned, reason, host)
            ).rowcount
            == 1
            for host, reason, banned in many
        ]

    # Enrolments, tokens, receipts, journal

    def add_enrolments(
        self, connection: sqlite3.Connection, many: Sequence[EnrolmentRow]
    ) -> list[None]:
        connection.executemany(
            "INSERT INTO enrolments VALUES (?, ?, ?, ?, ?, ?, ?)",
            [
                (
                    row.id,
                    row.secret_sha256,
                    row.label,
                    row.created_at,
                    row.expires_at,
                    row.launchers_allowed,
                    int(row.revoked),
                )
                for row in many
            ],
        )
        return [None] * len(many)

    def revoke_enrolment(self, connection: sqlite3.Connection, many: Sequence[str]) -> list[bool]:
        return [
            connection.execute("UPDATE enrolments SET revoked = 1 WHERE id = ?", (item,)).rowcount
            == 1
            for item in many
        ]

    def add_token(self, connection: sqlite3.Connection, many: Sequence[TokenRow]) -> list[None]:
        connection.executemany(
            "INSERT INTO tokens VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            [
                (
                    row.id,
                    row.sha256,
                    row.role,
                    row.experiment,
                    row.label,
                    row.created_at,
                    row.expires_at,
                    int(row.revoked),
                )
                for row in many
            ],
        )
        return [None] * len(many)

    def revoke_token(self, connection: sqlite3.Connection, many: Sequence[str]) -> list[bool]:
        return [
            connection.execute("UPDATE tokens SET revoked = 1 WHERE id = ?", (item,)).rowcount == 1
            for item in many
        ]

    def receipts_kept(
        self, connection: sqlite3.Connection, many: Sequence[tuple[str, str]]
    ) -> list[None]:
        write(connection, RECEIPTS_KEPT, many)
        return [None] * len(many)

    def append_journal(
        self, connection: sqlite3.Connection, many: Sequence[tuple[JournalEntry, int]]
    ) -> list[None]:
        for entry, keep in many:
            connection.execute(
                "INSERT INTO journal (last, first, body) VALUES (?, ?, ?)",
                (entry.last, entry.first, entry.body),
            )
            connection.execute("DELETE FROM journal WHERE last < ?", (entry.last - keep,))
        return [None] * len(many)
