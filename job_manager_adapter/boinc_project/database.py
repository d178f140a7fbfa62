"""The tables of a BOINC project, as far as credit is concerned. Names and meanings are BOINC's."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pymysql

from job_manager_adapter.boinc_project.averages import grown
from job_manager_adapter.boinc_project.project import Project

VALID = 1
"""Of result.validate_state."""
OVER = 5
"""Of result.server_state."""
PAGE = 200
_SECONDS = 30
"""For a connection, an answer, and for a row that somebody else holds."""


@dataclass(frozen=True)
class Result:
    """One that the validator found good, and that has no credit."""

    id: int
    name: str
    sent_time: int
    xml_doc_in: str
    """Names its output files."""


@dataclass(frozen=True)
class Granted:
    """Who got it; 0 for nobody."""

    host: int
    user: int
    team: int


class Database:
    """All methods raise pymysql.MySQLError."""

    def __init__(self, project: Project, socket: Path | None = None) -> None:
        place: dict[str, Any] = {"host": project.db_host or "localhost", "port": project.db_port}
        if not project.db_host and socket:
            place = {"unix_socket": str(socket)}
        self._connection = pymysql.connect(
            **place,
            user=project.db_user,
            password=project.db_password,
            database=project.db_name,
            charset="utf8mb4",
            autocommit=True,
            connect_timeout=_SECONDS,
            read_timeout=2 * _SECONDS,
            write_timeout=2 * _SECONDS,
            init_command=f"SET innodb_lock_wait_timeout = {_SECONDS}",
        )

    def close(self) -> None:
        self._connection.close()

    def pending(self, app: str, after: int = 0) -> list[Result]:
        """Of this application, by id, beyond `after`; at most a page."""
        rows = self._rows(
            "SELECT r.id, r.name, r.sent_time, r.xml_doc_in FROM result r"
            " JOIN app a ON a.id = r.appid WHERE a.name = %s AND r.server_state = %s"
            " AND r.validate_state = %s AND r.granted_credit = 0 AND r.id > %s"
            " ORDER BY r.id LIMIT %s",
            (app, OVER, VALID, after, PAGE),
        )
        return [Result(row[0], row[1], row[2], _text(row[3])) for row in rows]

    def grant(self, result: Result, amount: float, now: float) -> Granted | None:
        """Credit for the result, its host, user and team, all or nothing.

        None for a result that somebody else has granted meanwhile, or that is valid no longer.
        """
        self._connection.begin()
        try:
            granted = self._grant(result, amount, now)
        except BaseException:
            self._abandon()
            raise
        self._connection.commit()
        return granted

    def _abandon(self) -> None:
        try:
            self._connection.rollback()
        except pymysql.MySQLError:
            self._connection.close()  # the server rolls back by itself

    def _grant(self, result: Result, amount: float, now: float) -> Granted | None:
        """Rows are locked in this order by every daemon: result, host, user, team."""
        state = self._row(
            "SELECT hostid FROM result WHERE id = %s AND validate_state = %s"
            " AND granted_credit = 0 FOR UPDATE",
            (result.id, VALID),
        )
        if state is None:
            return None
        self._do("UPDATE result SET granted_credit = %s WHERE id = %s", (amount, result.id))
        work = (amount, float(result.sent_time), now)
        (host,) = state
        user = self._add("host", "userid", host, work)
        team = self._add("user", "teamid", user, work)
        return Granted(host, user, team if self._add("team", "userid", team, work) else 0)

    def _add(self, table: str, next_column: str, number: int, work: tuple[float, ...]) -> int:
        """Adds to one row; returns what its `next_column` refers to, 0 without such a row.

        Table and column are words of this program's.
        """
        row = number and self._row(
            f"SELECT expavg_credit, expavg_time, {next_column} FROM `{table}`"  # noqa: S608
            " WHERE id = %s FOR UPDATE",
            (number,),
        )
        if not row:
            return 0
        amount, started, now = work
        average = grown(row[0], row[1], amount, started, now)
        self._do(
            f"UPDATE `{table}` SET total_credit = total_credit + %s,"  # noqa: S608
            " expavg_credit = %s, expavg_time = %s WHERE id = %s",
            (amount, average, now, number),
        )
        return int(row[2])

    def _rows(self, sql: str, values: Sequence[object]) -> Sequence[Sequence[Any]]:
        with self._connection.cursor() as cursor:
            cursor.execute(sql, values)
            return list(cursor.fetchall())

    def _row(self, sql: str, values: Sequence[object]) -> Sequence[Any] | None:
        rows = self._rows(sql, values)
        return rows[0] if rows else None

    def _do(self, sql: str, values: Sequence[object]) -> None:
        self._rows(sql, values)


def _text(value: bytes | str | None) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else value or ""
