"""The private apt, asked about an archive in a folder, by the real apt."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from deploy.image import apt
from deploy.image.lock import Package
from deploy.image.problems import BuildError

STANZA = """\
Package: libc6
Version: 2.41-5
Architecture: amd64
Maintainer: nobody <nobody@example.org>
Filename: libc6.deb
Size: 7
SHA256: {sha256}
Description: a library
"""


@pytest.fixture
def archive(tmp_path: Path) -> apt.PrivateApt:
    """An apt whose only source is a folder that offers libc6 2.41-5."""
    offered = tmp_path / "offered"
    offered.mkdir()
    (offered / "Packages").write_text(STANZA.format(sha256="5" * 64))
    root = tmp_path / "apt-trixie"
    for name in ("etc/parts", "etc/preferences.d", "state/lists/partial", "cache/archives/partial"):
        (root / name).mkdir(parents=True)
    (root / "state/status").write_text("")
    (root / "etc/sources.list").write_text(f"deb [trusted=yes] file:{offered} ./\n")
    config = root / "apt.conf"
    config.write_text(apt._CONFIG.format(root=root))
    subprocess.run(
        ["apt-get", "update", "-q"],
        env={"PATH": "/usr/bin:/bin", "APT_CONFIG": str(config)},
        check=True,
        capture_output=True,
    )
    return apt.PrivateApt(tmp_path, "trixie")


def locked(name: str, version: str) -> Package:
    return Package(name=name, version=version, suite="trixie", size=7, sha256="5" * 64)


def test_what_the_archive_still_holds_is_found(archive: apt.PrivateApt) -> None:
    assert archive.find(locked("libc6", "2.41-5")) == locked("libc6", "2.41-5")


@pytest.mark.parametrize(("name", "version"), [("libc6", "2.41-4"), ("libc7", "2.41-5")])
def test_a_version_or_a_name_that_left_is_not_found(
    archive: apt.PrivateApt, name: str, version: str
) -> None:
    assert archive.find(locked(name, version)) is None


def test_an_unknown_candidate_is_an_error_that_names_it(archive: apt.PrivateApt) -> None:
    assert archive.candidate("libc6").version == "2.41-5"
    with pytest.raises(BuildError, match="libc7"):
        archive.candidate("libc7")
