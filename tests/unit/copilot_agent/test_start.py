"""Console scripts where other libraries than their own are installed."""

import subprocess
import sys
from pathlib import Path

import pytest

# An environment with the extra boinc-project: pydantic and cryptography are in it, these are not.
_WITHOUT = """
import sys
sys.path.insert(0, sys.argv[1])
sys.modules |= dict.fromkeys(("aiohttp", "h2", "qemu", "rich", "slixmpp", "jwt"))
from {module} import {name}
sys.argv = sys.argv[1:]
sys.exit({name}())
"""


@pytest.mark.parametrize(
    ("module", "name", "words", "extra"),
    [
        ("job_manager_adapter.start", "copilot", ["whoami"], "client"),
        ("job_manager_adapter.start", "copilot_manager", ["enrolment", "list"], "manager"),
        ("vm_launcher.start", "vm_launcher", ["doctor"], "launcher"),
        ("copilot_agent.start", "copilot_agent", ["probe", "--state", "x"], "agent"),
    ],
)
def test_a_library_that_is_not_there_is_said_with_its_extra(
    module: str, name: str, words: list[str], extra: str, repository: Path, tmp_path: Path
) -> None:
    program = _WITHOUT.format(module=module, name=name)
    done = subprocess.run(
        [sys.executable, "-c", program, repository, *words],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    (line,) = done.stderr.splitlines()
    assert done.returncode == 2 and line.endswith(f"cloud-copilot[{extra}]")


def test_without_any_library(repository: Path) -> None:
    program = "import sys; sys.path.insert(0, sys.argv[1]); import job_manager_adapter.start as s"
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", f"{program}; sys.exit(s.copilot())", repository],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2 and "no Python package" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_mistake_of_our_own_stays_a_traceback(repository: Path) -> None:
    program = "from copilot_agent.start import start; start('x', 'copilot_agent.nowhere', 'agent')"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=repository, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1 and "Traceback" in done.stderr
