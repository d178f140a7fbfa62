"""Grants what receipts say to results that the validator found good."""

import logging
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from job_manager_adapter.boinc_project.checking import RefusedError, total
from job_manager_adapter.boinc_project.database import Database, Result
from job_manager_adapter.boinc_project.ledger import Ledger
from job_manager_adapter.boinc_project.names import parse_upload
from job_manager_adapter.boinc_project.project import Project
from job_manager_adapter.boinc_project.uploads import check_uploads, upload_path

_FILE_NAME = re.compile(r"<file_name>\s*([^<>\s]{1,255})\s*</file_name>")
log = logging.getLogger("grant-credit")


@dataclass
class Granter:
    """One pass after the other over what is pending."""

    project: Project
    app: str
    keys: Sequence[str]
    ledger: Ledger
    most_credit: float
    dry_run: bool = False
    _settled: set[int] = field(default_factory=set)
    """Nothing is to be granted to these, for good."""
    _missed: set[int] = field(default_factory=set)
    """Their files were not there; that was said once."""

    def run(self, database: Database, clock: Callable[[], float], stop: Callable[[], bool]) -> int:
        """One pass; the number of results that were granted credit.

        Raises sqlite3.Error, pymysql.MySQLError.
        """
        granted, after = 0, 0
        while page := database.pending(self.app, after):
            after = page[-1].id
            for result in page:
                if stop():
                    return granted
                if result.id not in self._settled:
                    granted += self._one(database, result, clock())
        return granted

    def _one(self, database: Database, result: Result, now: float) -> bool:
        amount = self._amount(result)
        if not amount:
            return False
        if self.dry_run:
            log.info("would grant %.6f to %s", amount, result.name)
            return True
        done = database.grant(result, amount, now)
        if done is None:
            log.info("%s was granted by somebody else meanwhile", result.name)
            return False
        who = (amount, result.name, done.host, done.user, done.team)
        log.info("granted %.6f to %s: host %d, user %d, team %d", *who)
        return True

    def _amount(self, result: Result) -> float:
        """0 where there is nothing to grant, which the log explains."""
        try:
            amount = self._checked(result)
        except RefusedError as error:
            log.warning("%s was found valid, but: %s; nothing is granted", result.name, error)
            amount = 0.0
        except OSError as error:
            return self.ledger.booked(result.name) or self._miss(result, error)
        if not amount:
            self._settled.add(result.id)
        return amount

    def _miss(self, result: Result, error: OSError) -> float:
        """It may be there next time: a directory was not mounted, say."""
        if result.id not in self._missed:
            log.warning("%s: %s, and the ledger has nothing of it", result.name, error)
            self._missed.add(result.id)
        return 0.0

    def _checked(self, result: Result) -> float:
        names = output_files(result)
        paths = [upload_path(self.project.upload_dir, self.project.fanout, name) for name in names]
        _, counted = check_uploads(paths, self.keys)
        amount = total(counted, self.most_credit)
        if not self.dry_run:
            self.ledger.book(result.name, counted)
        return amount


def output_files(result: Result) -> list[str]:
    """Raises RefusedError for none, and for names that are not this result's."""
    names = _FILE_NAME.findall(result.xml_doc_in)
    for name in names:
        upload = parse_upload(name)
        if upload is None or upload.result != result.name:
            raise RefusedError(f"its output file {name!r} is not called after it")
    if not names:
        raise RefusedError("no output file is named in its xml_doc_in")
    return names
