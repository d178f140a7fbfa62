"""The application as `vm-launcher boinc-project` assembles it, once for all tests."""

import subprocess
from pathlib import Path

import pytest

from tests.harness.programs import TOOLS


@pytest.fixture(scope="session")
def application(tmp_path_factory: pytest.TempPathFactory, cache: Path, launcher_file: Path) -> Path:
    project = tmp_path_factory.mktemp("application")
    (project / "config.xml").write_text("<boinc></boinc>\n")
    command = [
        *(str(TOOLS / "vm-launcher"), "boinc-project", str(project)),
        *("--launcher", str(launcher_file), "--image", str(cache / "image")),
        *("--manager", "http://127.0.0.1:9", "--memory", "384", "--disk", "512"),
    ]
    subprocess.run(command, check=True, capture_output=True)
    return project
