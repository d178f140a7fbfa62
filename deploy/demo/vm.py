"""Reading the launcher's status file."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploy.demo.summary import VmFacts


@dataclass(frozen=True)
class Status:
    """`status.json` of the launcher, as far as the demo shows it."""

    raw: dict[str, Any]
