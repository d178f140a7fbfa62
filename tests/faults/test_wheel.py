"""What stops a process for a test is not in what is shipped."""

import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

HOOKS = re.compile(rb"sitecustomize|COPILOT_FAULT|tests[./](faults|harness)")
SOURCES = ("copilot_agent", "job_manager_adapter", "vm_launcher", "deploy", "tests")
FILES = ("pyproject.toml", "README.md", "LICENSE")


@pytest.fixture(scope="module")
def wheel(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As `pip wheel .` makes it from this checkout; built elsewhere, for it leaves files there."""
    target = tmp_path_factory.mktemp("wheel")
    ignored = shutil.ignore_patterns("__pycache__", ".*")
    for name in SOURCES:
        shutil.copytree(repository / name, target / "source" / name, ignore=ignored)
    for name in FILES:
        shutil.copy(repository / name, target / "source" / name)
    options = ("--no-deps", "--no-build-isolation", "--no-index", "--quiet")
    command = (sys.executable, "-m", "pip", "wheel", *options, "--wheel-dir", str(target))
    subprocess.run((*command, str(target / "source")), check=True)
    (built,) = target.glob("*.whl")
    return built


def test_the_wheel_has_no_hook(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        found = {name: HOOKS.findall(archive.read(name)) for name in names}
    tops = {name.split("/")[0] for name in names if ".dist-info" not in name}
    assert tops == {"copilot_agent", "job_manager_adapter", "vm_launcher"}
    assert {name: words for name, words in found.items() if words} == {}
