"""The lock files cover what pyproject.toml asks for, and name no place to fetch from."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


def pins(path: Path) -> dict[str, str]:
    """Locked versions by name."""
    lines = [line.split()[0] for line in path.read_text().splitlines() if "==" in line]
    requirements = [Requirement(line) for line in lines]
    return {canonicalize_name(r.name): str(r.specifier)[2:] for r in requirements}


def wanted(repository: Path, extra: str) -> list[Requirement]:
    """What an extra asks for, with the extras that it names in turn."""
    project = tomllib.loads((repository / "pyproject.toml").read_text())["project"]
    found: list[Requirement] = [Requirement(text) for text in project["dependencies"]]
    for text in project["optional-dependencies"][extra]:
        requirement = Requirement(text)
        if requirement.name == project["name"]:
            for further in requirement.extras:
                found += wanted(repository, further)
        else:
            found.append(requirement)
    return found


@pytest.mark.parametrize("extra", ["demo", "test", "launcher"])
def test_lock_holds_what_the_project_asks_for(repository: Path, extra: str) -> None:
    locked = pins(repository / f"requirements/{extra}.txt")
    asked = wanted(repository, extra)
    missing = [
        str(requirement)
        for requirement in asked
        if not requirement.specifier.contains(
            locked.get(canonicalize_name(requirement.name), "0"), prereleases=True
        )
    ]
    assert asked
    assert missing == [], "run `make lock`"


def test_one_environment_serves_both(repository: Path) -> None:
    demo = pins(repository / "requirements/demo.txt")
    assert demo.items() <= pins(repository / "requirements/test.txt").items()


def test_what_is_bundled_is_what_was_tested(repository: Path) -> None:
    bundled = pins(repository / "requirements/launcher.txt")
    tested = pins(repository / "requirements/test.txt")
    both = bundled.keys() & tested.keys()
    assert {"pydantic", "cryptography", "h2", "qemu-qmp"} <= both
    assert {name: bundled[name] for name in both} == {name: tested[name] for name in both}


@pytest.mark.parametrize("name", ["demo", "test", "launcher", "bench", "pythia"])
def test_every_pin_has_hashes_and_no_place(repository: Path, name: str) -> None:
    text = (repository / f"requirements/{name}.txt").read_text()
    entries = text.replace("\\\n", " ").splitlines()
    assert [e for e in entries if "==" in e and "--hash=sha256:" not in e] == []
    assert "://" not in text
    assert "--find-links" not in text
