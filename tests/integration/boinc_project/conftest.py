"""A BOINC project's server, as far as credit is concerned: MariaDB, config.xml, upload directory.

The tables have the columns that we touch. BOINC's own programs are not there.
"""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from copilot_agent.protocol.ids import make_id
from job_manager_adapter.boinc_project.names import workunit_name
from job_manager_adapter.boinc_project.uploads import upload_path
from tests.harness.mariadb import SCHEMA, MariaDb, server
from tests.harness.receipts import ReceiptMaker

_NUMBERS = itertools.count(1)
FANOUT = 1024
PROGRAM = Path(__file__).resolve().parents[3] / "deploy/boinc/grant-credit"
SENT = 1_700_000_000


@pytest.fixture(scope="session")
def mariadb() -> Iterator[MariaDb]:
    with server() as running:
        yield running


@dataclass
class Result:
    id: int
    name: str
    file: Path


@dataclass
class BoincProject:
    directory: Path
    database: str
    mariadb: MariaDb
    manager: ReceiptMaker
    connection: Any
    children: list[subprocess.Popen[str]] = field(default_factory=list)

    def sql(self, text: str, *values: object) -> list[tuple[Any, ...]]:
        with self.connection.cursor() as cursor:
            cursor.execute(text, values)
            return list(cursor.fetchall())

    def add(self, *, count: int = 2, host: int = 1, valid: bool = True, app: int = 1) -> Result:
        """A result of a workunit of its own, with `count` receipts of one credit each."""
        number = next(_NUMBERS)
        enrolment = make_id("e", 1.0, number)
        name = f"{workunit_name(enrolment)}_0"
        file = upload_path(self.directory / "upload", FANOUT, f"{name}_r77_0")
        file.parent.mkdir(parents=True, exist_ok=True)
        receipts = (
            self.manager.statement(n, enrolment=enrolment, id=make_id("r", number, n))
            for n in range(count)
        )
        file.write_text(
            "".join(f"{self.manager.alone(one).model_dump_json()}\n" for one in receipts)
        )
        xml = (
            f"<file_info><name>{file.name}</name></file_info>\n<result>\n<file_ref>\n"
            f"<file_name>{file.name}</file_name>\n<open_name>receipts</open_name>\n</file_ref>\n"
            "</result>\n"
        )
        with self.connection.cursor() as cursor:
            cursor.execute(
                "INSERT INTO result (workunitid, server_state, outcome, hostid, userid, sent_time,"
                " name, xml_doc_in, validate_state, granted_credit, appid, teamid)"
                " VALUES (%s, 5, 1, %s, 1, %s, %s, %s, %s, 0, %s, 1)",
                (number, host, SENT, name, xml, int(valid), app),
            )
            return Result(cursor.lastrowid, name, file)

    def credit(self) -> dict[str, float]:
        """Totals by table, of the first row each."""
        totals = {
            table: self.sql(f"SELECT total_credit FROM {table} WHERE id = 1")[0][0]  # noqa: S608
            for table in ("host", "user", "team")
        }
        return totals | {"result": self.sql("SELECT sum(granted_credit) FROM result")[0][0] or 0}

    def start(self, *words: str) -> subprocess.Popen[str]:
        """The daemon, as `bin/start` of BOINC starts it."""
        child = subprocess.Popen(
            [sys.executable, PROGRAM, "--project", self.directory, *words],
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )  # fmt: skip
        self.children.append(child)
        return child

    def run(self, *words: str) -> tuple[int, str]:
        """Exit code and log of one pass."""
        child = self.start("--one-pass", *words)
        _, said = child.communicate(timeout=60)
        return child.returncode, said


@pytest.fixture
def project(mariadb: MariaDb, tmp_path: Path) -> Iterator[BoincProject]:
    manager = ReceiptMaker()
    database = f"project_{next(_NUMBERS)}"
    connection = mariadb.connect()
    connection.autocommit(True)
    made = BoincProject(tmp_path, database, mariadb, manager, connection)
    made.sql(f"CREATE DATABASE {database}")
    connection.select_db(database)
    for statement in SCHEMA.split(";\n")[:-1]:
        made.sql(statement)
    made.sql("INSERT INTO app (name) VALUES ('copilot'), ('other')")
    made.sql("INSERT INTO team VALUES (1, 1, 50, 0, 0)")
    made.sql("INSERT INTO user VALUES (1, 1, 20, 0, 0)")
    made.sql("INSERT INTO host VALUES (1, 1, 10, 0, 0)")
    (tmp_path / "config.xml").write_text(
        f"<boinc><config><db_name>{database}</db_name><db_host>localhost</db_host>"
        "<db_user>boincadm</db_user><db_passwd>secret</db_passwd>"
        f"<upload_dir>{tmp_path / 'upload'}</upload_dir>"
        f"<uldl_dir_fanout>{FANOUT}</uldl_dir_fanout></config></boinc>"
    )
    (tmp_path / "copilot-credit.toml").write_text(
        f'manager_keys = "{manager.public}"\nledger = "ledger.db"\n'
        f'database_socket = "{mariadb.socket}"\n'
    )
    yield made
    for child in made.children:
        if child.poll() is None:
            os.killpg(child.pid, signal.SIGKILL)
        with child:  # waits and closes its pipe
            pass
    connection.close()
