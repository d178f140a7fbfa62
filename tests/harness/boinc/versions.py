"""Application versions, from `apps/<app>/<version>/<platform>[__<plan class>]` as
`update_versions` reads them: version.xml, the files, and a `.sig` beside each or the signing key.
"""

from __future__ import annotations

import gzip
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.harness.boinc.xml import Element, block, flags, is_set, line, parse, text_of
from vm_launcher.boinc_project.signing import PrivateKey, md5

_SIGNATURE = ".sig"
_PIECE = 1 << 20
_digests: dict[tuple[int, ...], str] = {}
_FLAGS = ("dont_throttle", "needs_network", "is_wrapper")


def copy_project(source: Path, target: Path) -> Path:
    """Applications, templates, keys and what is staged, without any work.

    By links: large files are packed and stored once for all tests, which must not write to them.
    """
    for name in ("apps", "templates", "keys", "download", "download_gzip"):
        if (source / name).is_dir():
            shutil.copytree(source / name, target / name, copy_function=os.link)
    return target


@dataclass(frozen=True)
class AppFile:
    """One file of a version; it lies in the download directory under its physical name."""

    physical_name: str
    logical_name: str
    path: Path
    signature: str
    main_program: bool = False
    copy_file: bool = False
    gzip: bool = False

    def info(self, downloads: str, signature: str) -> str:
        url = f"{downloads}{self.physical_name}"
        return block(
            "file_info",
            line("name", self.physical_name),
            line("url", url),
            line("gzipped_url", f"{url}.gz") if self.gzip else "",
            flags(["executable"] if self.main_program or os.access(self.path, os.X_OK) else []),
            f"<file_signature>\n{signature}</file_signature>\n",
            line("nbytes", self.path.stat().st_size),
            line("gzipped_nbytes", packed_path(self.path).stat().st_size) if self.gzip else "",
        )

    def reference(self) -> str:
        named = line("open_name", self.logical_name) if self.logical_name else ""
        marks = [mark for mark in ("copy_file", "main_program") if getattr(self, mark)]
        return block("file_ref", line("file_name", self.physical_name), named, flags(marks))


@dataclass(frozen=True)
class AppVersion:
    app_name: str
    number: int
    platform: str
    plan_class: str
    files: tuple[AppFile, ...]
    flags: tuple[str, ...]
    api_version: str

    def document(self, usage: str) -> str:
        """As the scheduler sends it; `usage`: its own lines, such as `<avg_ncpus>`."""
        return block(
            "app_version",
            line("app_name", self.app_name),
            line("version_num", self.number),
            line("platform", self.platform),
            line("plan_class", self.plan_class) if self.plan_class else "",
            line("api_version", self.api_version) if self.api_version else "",
            usage,
            *(file.reference() for file in self.files),
            flags(self.flags),
        )


def read_versions(project: Path) -> list[AppVersion]:
    """All versions in the project directory, oldest first, their files staged for download."""
    found = [_read(directory, project) for directory in sorted(project.glob("apps/*/*/*"))]
    return sorted(found, key=lambda version: version.number)


def _read(directory: Path, project: Path) -> AppVersion:
    described = directory / "version.xml"
    version = parse(described.read_text()) if described.exists() else Element("version")
    files = tuple(_files(directory, version, project))
    if sum(file.main_program for file in files) != 1:
        raise ValueError(f"{directory} needs exactly one main program")
    platform, _, plan_class = directory.name.partition("__")
    return AppVersion(
        app_name=directory.parents[1].name,
        number=version_number(directory.parent.name),
        platform=platform,
        plan_class=plan_class,
        files=files,
        flags=tuple(name for name in _FLAGS if is_set(version, name)),
        api_version=text_of(version, "api_version"),
    )


def version_number(text: str) -> int:
    """`1.07` is 107."""
    major, _, minor = text.partition(".")
    return 100 * int(major) + int(minor) if minor else int(major)


def _files(directory: Path, version: Element, project: Path) -> Iterator[AppFile]:
    described = {text_of(entry, "physical_name"): entry for entry in version.findall("file")}
    paths = [path for path in sorted(directory.iterdir()) if _is_file_of_it(path)]
    if missing := described.keys() - {path.name for path in paths}:
        raise ValueError(f"{directory} lacks {', '.join(sorted(missing))} of its version.xml")
    for path in paths:
        entry = described.get(path.name, Element("file"))
        yield AppFile(
            physical_name=path.name,
            logical_name=text_of(entry, "logical_name"),
            path=stage(path, project, packed=is_set(entry, "gzip")),
            signature=_signature(path, project),
            main_program=is_set(entry, "main_program") or len(paths) == 1,
            copy_file=is_set(entry, "copy_file"),
            gzip=is_set(entry, "gzip"),
        )


def _is_file_of_it(path: Path) -> bool:
    # as update_versions decides it: what ends so is a signature, whatever it was meant to be
    _, found, rest = path.name.partition(_SIGNATURE)
    return path.name != "version.xml" and not (found and not rest) and path.is_file()


def _signature(path: Path, project: Path) -> str:
    beside = path.with_name(path.name + _SIGNATURE)
    if beside.exists():
        return beside.read_text()
    key = project / "keys" / "code_sign_private"
    if not key.exists():
        raise ValueError(f"{path} has no .sig beside it, and the project no code signing key")
    return PrivateKey.from_text(key.read_text()).sign(digest(path))


def stage(path: Path, project: Path, packed: bool) -> Path:
    """Copy into the download directory, where a name never gets another content."""
    staged = project / "download" / path.name
    staged.parent.mkdir(exist_ok=True)
    if staged.exists() and digest(staged) != digest(path):
        raise ValueError(f"{path.name} was staged before with another content")
    if not staged.exists():
        shutil.copy2(path, staged)
    if packed and not packed_path(staged).exists():
        _pack(staged, packed_path(staged))
    return staged


def digest(path: Path) -> str:
    """MD5, computed once for the large files that many tests share by links."""
    told = path.stat()
    content = (told.st_dev, told.st_ino, told.st_size, told.st_mtime_ns)
    if content not in _digests:
        _digests[content] = md5(path)
    return _digests[content]


def _pack(path: Path, packed: Path) -> None:
    packed.parent.mkdir(exist_ok=True)
    with path.open("rb") as plain, gzip.open(packed, "wb", compresslevel=1) as file:
        shutil.copyfileobj(plain, file, _PIECE)


def packed_path(staged: Path) -> Path:
    """Apart, because aiohttp would send a `.gz` beside a file in place of the file."""
    return staged.parents[1] / "download_gzip" / f"{staged.name}.gz"
