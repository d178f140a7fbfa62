"""Bugs planted into a copy of the packages, to see that the simulation finds them."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

PACKAGES = ("copilot_agent", "job_manager_adapter", "vm_launcher")
MOST_SCHEDULES = 2000
RIGHT = {
    "acknowledgement-before-commit": "acknowledged-lost",
    "offer-before-commit": "offered-twice",
    "attempt-not-compared": "accepted-stale",
    "renewal-revives-expired-lease": "lease-revived",
    "no-grace-after-restart": "lease-lost-early",
    "cancel-lost-over-reconnect": "runs-on",
    "receipt-issued-twice": "credit",
}
"""What the checker has to say of each."""


def plant(repository: Path, patch: Path, target: Path) -> None:
    """A copy of the packages with the patch in it. Raises AssertionError with the remedy."""
    for package in PACKAGES:
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(repository / package, target / package, ignore=ignored)
    (target / "tests").symlink_to(repository / "tests")
    command = ["patch", "--strip=1", "--forward", f"--input={patch}"]
    done = subprocess.run(command, cwd=target, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise AssertionError(
            f"{patch.name} does not apply any more:\n{done.stdout}\n"
            "Make the same mistake in the code as it is now, write `git diff` of it into "
            f"{patch.relative_to(repository)}, and take the mistake back."
        )


def hunt(directory: Path, base: int, invariant: str) -> tuple[int, dict[str, list[str]]]:
    """How many schedules it took until that was found, and all that was found, by seed."""
    command = [
        sys.executable,
        *("-m", "tests.simulation", str(MOST_SCHEDULES)),
        *("--base", str(base), "--until", invariant, "--json"),
    ]
    environment = {**os.environ, "PYTHONPATH": str(directory), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        command, cwd=directory, env=environment, capture_output=True, text=True, check=False
    )
    if not done.stdout.startswith("{"):
        raise AssertionError(f"the simulation broke:\n{done.stderr}")
    found = json.loads(done.stdout)
    return found["count"], found["failures"]
