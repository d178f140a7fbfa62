"""A locked version that left the archive is replaced, visibly; a changed file is refused."""

from __future__ import annotations

import datetime as dt
import hashlib
from pathlib import Path

import pytest

from deploy.image import debs
from deploy.image.apt import Mirror
from deploy.image.lock import Lock, Package
from deploy.image.problems import BuildError


def package(name: str, version: str, suite: str = "trixie") -> Package:
    data = f"{name} {version}".encode()
    return Package.model_validate(
        {
            "name": name, "version": version, "suite": suite, "size": len(data),
            "sha256": hashlib.sha256(data).hexdigest(),
        }
    )  # fmt: skip


LOCK = Lock(
    serial=1,
    snapshot=dt.datetime(2026, 1, 1, tzinfo=dt.UTC),
    kernel=package("linux-image-1-cloud-amd64", "1", "bookworm"),
    packages=(package("libc6", "1"), package("libssl3t64", "1")),
)


class Archive:
    """Stands for apt and its mirror: `offers` is what they have now."""

    offers = list(LOCK.every_package())
    updates = 0
    spoil = False

    def __init__(self, _root: Path, suite: str) -> None:
        self.suite = suite

    def update(self, _mirror: Mirror) -> None:
        type(self).updates += 1

    def find(self, locked: Package) -> Package | None:
        same = [p for p in self.offers if (p.name, p.version) == (locked.name, locked.version)]
        return same[0] if same else None

    def candidate(self, name: str) -> Package:
        return next(p for p in self.offers if p.name == name)

    def concrete_name(self, _meta: str) -> str:
        return next(p.name for p in self.offers if p.name.startswith("linux-image"))

    def download(self, packages: list[Package], into: Path) -> None:
        for wanted in packages:
            text = "spoilt" if self.spoil else f"{wanted.name} {wanted.version}"
            (into / f"{wanted.name}.deb").write_text(text)


@pytest.fixture
def archive(monkeypatch: pytest.MonkeyPatch) -> type[Archive]:
    class Mine(Archive):
        pass

    monkeypatch.setattr(debs, "PrivateApt", Mine)
    monkeypatch.setattr(debs, "machine_mirror", lambda: Mirror("m", "s"))
    return Mine


def test_a_warm_cache_asks_nobody(archive: type[Archive], tmp_path: Path) -> None:
    said: list[str] = []
    store = debs.Debs(tmp_path, said.append)
    assert store.effective(LOCK) == LOCK
    assert store.path(LOCK.packages[0]).read_text() == "libc6 1"
    asked = archive.updates
    assert debs.Debs(tmp_path, said.append).effective(LOCK) == LOCK
    assert archive.updates == asked


def test_what_left_the_archive_is_replaced_and_said(archive: type[Archive], tmp_path: Path) -> None:
    newer = package("libssl3t64", "2")
    kernel = package("linux-image-2-cloud-amd64", "2", "bookworm")
    archive.offers = [LOCK.packages[0], newer, kernel]
    for _ in range(2):  # the second time from the cache, without the archive
        said: list[str] = []
        current = debs.Debs(tmp_path, said.append).effective(LOCK)
        assert current.packages == (LOCK.packages[0], newer)
        assert current.kernel == kernel
        changes = [line for line in said if line.startswith("changed:")]
        assert any("libssl3t64 1" in line and "libssl3t64 2" in line for line in changes)
        assert len(changes) == 2
        archive.offers = []


def test_another_file_under_the_locked_version_is_refused(
    archive: type[Archive], tmp_path: Path
) -> None:
    forged = LOCK.packages[0].model_copy(update={"sha256": "0" * 64})
    archive.offers = [forged, LOCK.packages[1], LOCK.kernel]
    with pytest.raises(BuildError, match="differs from the lock"):
        debs.Debs(tmp_path, lambda _line: None).effective(LOCK)


def test_a_spoilt_download_is_refused_and_removed(archive: type[Archive], tmp_path: Path) -> None:
    archive.spoil = True
    store = debs.Debs(tmp_path, lambda _line: None)
    with pytest.raises(BuildError, match="wrong sha256"):
        store.effective(LOCK)
    assert [path for path in (tmp_path / "downloads").rglob("*") if path.is_file()] == []
