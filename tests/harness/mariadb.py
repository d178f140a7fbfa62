"""A MariaDB of the tests' own: Debian's program, an unprivileged user, a temporary directory.

It listens on a unix socket only; the system's service is never touched. On top of it the part of a
BOINC project's database that has to do with credit.
"""

import contextlib
import os
import pwd
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pymysql

SCHEMA = """
CREATE TABLE app (
    id integer NOT NULL AUTO_INCREMENT PRIMARY KEY, name varchar(191) NOT NULL
) ENGINE = InnoDB;
CREATE TABLE team (
    id integer NOT NULL AUTO_INCREMENT PRIMARY KEY, userid integer NOT NULL,
    total_credit double NOT NULL DEFAULT 0.0, expavg_credit double NOT NULL DEFAULT 0.0,
    expavg_time double NOT NULL
) ENGINE = InnoDB;
CREATE TABLE user (
    id integer NOT NULL AUTO_INCREMENT PRIMARY KEY, teamid integer NOT NULL,
    total_credit double NOT NULL, expavg_credit double NOT NULL, expavg_time double NOT NULL
) ENGINE = InnoDB;
CREATE TABLE host (
    id integer NOT NULL AUTO_INCREMENT PRIMARY KEY, userid integer NOT NULL,
    total_credit double NOT NULL, expavg_credit double NOT NULL, expavg_time double NOT NULL
) ENGINE = InnoDB;
CREATE TABLE result (
    id integer NOT NULL AUTO_INCREMENT PRIMARY KEY, workunitid integer NOT NULL,
    server_state integer NOT NULL, outcome integer NOT NULL, hostid integer NOT NULL,
    userid integer NOT NULL, sent_time integer NOT NULL, name varchar(191) NOT NULL UNIQUE,
    xml_doc_in blob, validate_state integer NOT NULL, granted_credit double NOT NULL,
    appid integer NOT NULL, teamid integer NOT NULL,
    mod_time timestamp DEFAULT current_timestamp ON UPDATE current_timestamp,
    INDEX res_app_state (appid, server_state)
) ENGINE = InnoDB;
"""
"""The columns that we touch, with the types, keys and defaults of BOINC's db/schema.sql."""


class MariaDb:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.socket = folder / "s"
        self._log = folder / "log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Returns once connections are accepted. No accounts: a new data directory has none."""
        identity = _identity()
        data = self.folder / "data"
        data.mkdir()
        if identity:
            for folder in (self.folder, data):
                os.chown(folder, identity["user"], identity["group"])
        command = [
            "/usr/sbin/mariadbd",
            "--no-defaults",
            f"--datadir={data}",
            f"--socket={self.socket}",
            f"--pid-file={self.folder / 'pid'}",
            "--skip-networking",
            "--skip-grant-tables",
            "--innodb-buffer-pool-size=16M",
            "--innodb-log-file-size=8M",
        ]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                command, **identity, cwd=self.folder, stdout=log, stderr=log, start_new_session=True
            )
        until = time.monotonic() + 60
        while "ready for connections" not in (said := self._log.read_text(errors="replace")):
            assert self._process.poll() is None, said
            assert time.monotonic() < until, said
            time.sleep(0.02)

    def connect(self, database: str | None = None) -> Any:
        return pymysql.connect(unix_socket=str(self.socket), user="boincadm", database=database)

    def stop(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait(timeout=60)


def _identity() -> dict[str, Any]:
    """MariaDB refuses to be root's."""
    if os.geteuid() != 0:
        return {}
    user = pwd.getpwnam("nobody")
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


@contextlib.contextmanager
def server() -> Iterator[MariaDb]:
    """A running one; nothing is left afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="copilot-my-"))  # short: it holds a unix socket
    folder.chmod(0o755)
    made = MariaDb(folder)
    try:
        made.start()
        yield made
    finally:
        made.stop()
        shutil.rmtree(folder)
