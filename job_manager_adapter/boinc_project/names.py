"""Names of workunits, results and files: they say which enrolment a workunit was issued.

A workunit is called `copilot_<enrolment id>`. BOINC appends `_<n>` for a result of it, and for an
uploaded file `_r<random>_<k>` to that (older servers `_<k>` only).
"""

import re
from dataclasses import dataclass

_ENROLMENT = r"e-[0-9a-hjkmnp-tv-z]{20}"
_FILE = re.compile(
    rf"(?P<result>copilot_(?P<enrolment>{_ENROLMENT})_[0-9]{{1,9}})(_r[0-9]{{1,19}})?_[0-9]{{1,4}}",
    re.ASCII,
)


@dataclass(frozen=True)
class Upload:
    """What the name of an uploaded file tells."""

    result: str
    """The result's name: the unit that a receipt counts for."""
    enrolment: str


def workunit_name(enrolment: str) -> str:
    return f"copilot_{enrolment}"


def parse_upload(name: str) -> Upload | None:
    """None for a name that no file of our workunits has."""
    found = _FILE.fullmatch(name)
    return Upload(found["result"], found["enrolment"]) if found else None
