"""`grant-credit`: a daemon of a BOINC project."""

import argparse
import logging
import signal
import sqlite3
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pymysql
from pymysql.constants import CR, ER

from copilot_agent.protocol.errors import CopilotError
from job_manager_adapter.boinc_project.database import Database
from job_manager_adapter.boinc_project.granting import Granter
from job_manager_adapter.boinc_project.ledger import Ledger
from job_manager_adapter.boinc_project.project import Project, database_socket, load_project
from job_manager_adapter.boinc_project.settings import (
    NAME,
    Settings,
    SettingsError,
    beside,
    load_settings,
    project_directory,
    public_keys,
)

_EXAMPLES = """in config.xml of the project:
  <daemons>
    <daemon>
      <cmd>script_validator --app copilot --no_credit --init_script "receipt-check files"</cmd>
    </daemon>
    <daemon><cmd>grant-credit</cmd></daemon>
  </daemons>

Never together with trickle_credit for the same application: work would be paid twice.
It ends by SIGHUP, SIGTERM, SIGINT or the project's file stop_daemons. Exit codes: 0 fine,
1 something is wrong (see the log).
"""
log = logging.getLogger("grant-credit")
TROUBLE = (OSError, sqlite3.Error, pymysql.MySQLError)
"""May be over at the next pass."""


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="grant-credit",
        description="Grant to results, hosts, users and teams what uploaded receipts say.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_common(parser)
    parser.add_argument(
        "--manager-key", action="append", default=[], metavar="KEY|FILE",
        help="instead of manager_keys in the settings",
    )  # fmt: skip
    parser.add_argument("--ledger", type=Path, metavar="FILE", help="the one of receipt-check")
    parser.add_argument("--socket", type=Path, help="of the database, where it is not found")
    parser.add_argument("--interval", type=_seconds, default=60.0, metavar="SECONDS")
    parser.add_argument("--one-pass", action="store_true", help="once, then end")
    parser.add_argument("--dry-run", action="store_true", help="one pass that changes nothing")
    return parser


def add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--project", type=Path, metavar="DIR", help="default: the one in whose bin/ this stands"
    )
    parser.add_argument("--config", type=Path, metavar="FILE", help=f"default: {NAME} there")


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0.1 <= seconds <= 86400:
        raise argparse.ArgumentTypeError("a number of seconds from 0.1 to 86400")
    return seconds


@dataclass
class Daemon:
    granter: Granter
    project: Project
    socket: Path | None
    stopped: threading.Event = field(default_factory=threading.Event)

    def stop(self, *_: object) -> None:
        self.stopped.set()

    def ending(self) -> bool:
        return self.stopped.is_set() or (self.project.directory / "stop_daemons").exists()

    def once(self) -> bool:
        """One pass; False if it did not come to its end."""
        try:
            database = Database(self.project, self.socket)
            try:
                self.granter.run(database, time.time, self.ending)
            finally:
                database.close()
        except TROUBLE as error:
            log.error("this pass ended early: %s%s", error, hint(error))
            return False
        return True

    def serve(self, interval: float) -> None:
        log.info("granting credit of %s every %g s", self.granter.app, interval)
        while not self.ending():
            self.once()
            self.stopped.wait(interval)
        log.info("ended")


def hint(error: Exception) -> str:
    """Which setting is wrong, where the database does not let us in."""
    code = error.args[0] if isinstance(error, pymysql.MySQLError) and error.args else None
    if code in (CR.CR_CONNECTION_ERROR, CR.CR_CONN_HOST_ERROR, CR.CR_UNKNOWN_HOST):
        return f"; where it is: database_socket in {NAME} or --socket, db_host in config.xml"
    if code in (ER.ACCESS_DENIED_ERROR, ER.DBACCESS_DENIED_ERROR, ER.BAD_DB_ERROR):
        return "; see db_user, db_passwd and db_name in config.xml"
    return ""


def build(args: argparse.Namespace) -> Daemon:
    """Raises SettingsError."""
    settings: Settings = load_settings(args.config or beside(args.project))
    project = load_project(args.project or project_directory())
    ledger = args.ledger or settings.ledger
    if ledger is None:
        raise SettingsError(
            "no ledger is given", remedy=f"--ledger FILE, or ledger in {NAME}, as receipt-check has"
        )
    granter = Granter(
        project=project,
        app=settings.app,
        keys=public_keys(tuple(args.manager_key) or settings.manager_keys),
        ledger=Ledger(ledger),
        most_credit=settings.most_credit,
        dry_run=args.dry_run,
    )
    return Daemon(granter, project, database_socket(args.socket or settings.database_socket))


def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s"
    )
    try:
        daemon = build(args)
    except CopilotError as error:
        log.error("%s%s", error.message, f"; {error.remedy}" if error.remedy else "")
        return 1
    for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGINT):
        signal.signal(number, daemon.stop)
    if args.one_pass or args.dry_run:
        return 0 if daemon.once() else 1
    daemon.serve(args.interval)
    return 0
