"""deploy/setup/check.sh: order, stop at the first failure, durations at the end."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest


@pytest.fixture
def cache_with_python(tmp_path: Path) -> Path:
    """A cache whose Python only says what it was asked, and fails for the tests with a VM."""
    python = tmp_path / "venv/bin/python"
    python.parent.mkdir(parents=True)
    python.write_text('#!/bin/sh\necho "asked: $*"\n[ "$*" != "-m pytest -m vm and not boinc" ]\n')
    python.chmod(0o755)
    return tmp_path


def check(
    repository: Path, cache: Path, *steps: str, uid: int = 0
) -> subprocess.CompletedProcess[str]:
    """Runs the steps as the user that `id` says to be."""
    (cache / "id").write_text(f"#!/bin/sh\necho {uid}\n")
    (cache / "id").chmod(0o755)
    return subprocess.run(
        ["sh", str(repository / "deploy/setup/check.sh"), *steps],
        env=os.environ | {"COPILOT_CACHE": str(cache), "PATH": f"{cache}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_stops_at_the_first_failure(repository: Path, cache_with_python: Path) -> None:
    done = check(repository, cache_with_python, "unit", "vm", "image")
    assert done.returncode == 1
    assert "deploy.image" not in done.stdout
    closing = [line.split(" ")[:2] for line in done.stdout.splitlines()[-2:]]
    assert closing == [["unit:", "passed"], ["vm:", "failed"]]


def test_image_is_built_into_the_cache(repository: Path, cache_with_python: Path) -> None:
    done = check(repository, cache_with_python, "image")
    assert done.returncode == 0
    assert f"--out {cache_with_python}/image" in done.stdout


def test_the_launcher_is_built_by_an_environment_of_its_own(
    repository: Path, cache_with_python: Path
) -> None:
    python = cache_with_python / "venv-launcher/bin/python"
    python.parent.mkdir(parents=True)
    python.write_bytes((cache_with_python / "venv/bin/python").read_bytes())
    python.chmod(0o755)
    done = check(repository, cache_with_python, "launcher")
    assert done.returncode == 0
    assert f"-m deploy.launcher --cache {cache_with_python}/launcher\n" in done.stdout


def test_unknown_step_is_refused(repository: Path, cache_with_python: Path) -> None:
    assert check(repository, cache_with_python, "everything").returncode == 64


def test_root_runs_every_test(repository: Path, cache_with_python: Path) -> None:
    done = check(repository, cache_with_python, "unit")
    assert "asked: -m pytest -m not vm\n" in done.stdout
    assert "left out" not in done.stdout


def test_what_an_ordinary_user_leaves_out_is_said_at_the_end(
    repository: Path, cache_with_python: Path
) -> None:
    done = check(repository, cache_with_python, "unit", uid=1000)
    assert "asked: -m pytest -m not vm and not root\n" in done.stdout
    assert done.stdout.splitlines()[-1] == (
        "left out: the tests marked root, because you are not root"
    )
