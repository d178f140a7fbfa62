"""The .debs of the lock file, in the cache, verified by hash."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from deploy.image.apt import Mirror, PrivateApt, machine_mirror
from deploy.image.contents import BASE_PACKAGES, BASE_SUITE, KERNEL_META, KERNEL_SUITE
from deploy.image.files import sha256_file, write_bytes
from deploy.image.lock import Lock, Package, next_serial
from deploy.image.problems import BuildError

Say = Callable[[str], None]


class Debs:
    """Downloads what is missing; a warm cache needs neither network nor apt."""

    def __init__(self, cache: Path, say: Say) -> None:
        self._cache = cache
        self._store = cache / "downloads" / "debs"
        self._say = say

    def path(self, package: Package) -> Path:
        return self._store / f"{package.sha256}.deb"

    def effective(self, lock: Lock) -> Lock:
        """The lock as the archive can still serve it; everything it names is then in the cache.

        A version that left the archive is replaced by the current one of the same suite, checked by
        the archive's signature, and said.
        """
        remembered = self._cache / "effective-lock.json"
        if not self._missing(lock):
            return lock
        if remembered.is_file():
            earlier, _, rest = remembered.read_text().partition("\n")
            if earlier == lock.model_dump_json() and not self._missing(
                known := Lock.model_validate_json(rest)
            ):
                self._tell_changes(lock, known)
                return known
        current = self._fetch(lock)
        text = f"{lock.model_dump_json()}\n{current.model_dump_json()}"
        write_bytes(remembered, text.encode())
        return current

    def _missing(self, lock: Lock) -> list[Package]:
        return [
            package
            for package in lock.every_package()
            if not (path := self.path(package)).is_file() or path.stat().st_size != package.size
        ]

    def _fetch(self, lock: Lock) -> Lock:
        mirror = machine_mirror()
        kernel = self._serve(KERNEL_SUITE, mirror, (lock.kernel,))[0]
        packages = self._serve(BASE_SUITE, mirror, lock.packages)
        current = lock.model_copy(update={"kernel": kernel, "packages": tuple(packages)})
        self._tell_changes(lock, current)
        return current

    def _serve(self, suite: str, mirror: Mirror, locked: tuple[Package, ...]) -> list[Package]:
        apt = PrivateApt(self._cache, suite)
        self._say(f"debian {suite}: reading the signed package lists")
        apt.update(mirror)
        packages = [self._current(apt, package) for package in locked]
        self._download(apt, [package for package in packages if not self.path(package).is_file()])
        return packages

    def _current(self, apt: PrivateApt, locked: Package) -> Package:
        found = apt.find(locked)
        if found is None:
            is_kernel = locked.suite == KERNEL_SUITE
            return apt.candidate(apt.concrete_name(KERNEL_META) if is_kernel else locked.name)
        if found != locked:
            raise BuildError(
                f"{locked.name} {locked.version}: the archive's file differs from the lock file's",
                "do not use this mirror; or run: python -m deploy.image lock",
            )
        return locked

    def _download(self, apt: PrivateApt, packages: list[Package]) -> None:
        if not packages:
            return
        total = sum(package.size for package in packages) / 1e6
        self._say(f"debian {apt.suite}: fetching {len(packages)} packages, {total:.1f} MB")
        self._store.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(dir=self._store, prefix=".part-"))
        try:
            apt.download(packages, work)
            found = {sha256_file(path): path for path in work.glob("*.deb")}
            for package in packages:
                if package.sha256 not in found:
                    raise BuildError(
                        f"{package.name}: the downloaded file has a wrong sha256",
                        "try again; if it stays, the mirror is broken",
                    )
                found[package.sha256].replace(self.path(package))
        finally:
            shutil.rmtree(work, ignore_errors=True)

    def _tell_changes(self, lock: Lock, current: Lock) -> None:
        for old, new in zip(lock.every_package(), current.every_package(), strict=True):
            if old != new:
                self._say(
                    f"changed: {old.name} {old.version} is no longer in the archive, "
                    f"using {new.name} {new.version} (signed by the archive)"
                )


def resolve(cache: Path, old_serial: int, say: Say) -> Lock:
    """A new lock from what the archive offers now."""
    mirror = machine_mirror()
    kernels, base = PrivateApt(cache, KERNEL_SUITE), PrivateApt(cache, BASE_SUITE)
    for apt in (kernels, base):
        say(f"debian {apt.suite}: reading the signed package lists")
        apt.update(mirror)
    snapshot = max(kernels.snapshot(), base.snapshot())
    return Lock(
        serial=next_serial(old_serial, snapshot),
        snapshot=snapshot,
        kernel=kernels.candidate(kernels.concrete_name(KERNEL_META)),
        packages=tuple(base.candidate(name) for name in BASE_PACKAGES),
    )
