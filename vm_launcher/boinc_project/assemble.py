"""Puts an application version together in a project's directory. Twice is as good as once."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from copilot_agent.protocol.errors import CopilotError, ErrorCode
from vm_launcher.boinc.task_settings import TaskSettings
from vm_launcher.boinc_project import templates
from vm_launcher.boinc_project.earlier import settings_of, version_before
from vm_launcher.boinc_project.key_files import PUBLIC, read_public_key
from vm_launcher.boinc_project.names import PLAN_CLASS, PLATFORM
from vm_launcher.boinc_project.own_files import OwnFiles
from vm_launcher.boinc_project.signatures import sign, unsigned
from vm_launcher.boinc_project.signing import PrivateKey, PublicKey
from vm_launcher.boinc_project.toml import settings_text
from vm_launcher.boinc_project.version import (
    LAUNCHER,
    PARTS,
    VERSION_XML,
    AppFile,
    app_file,
    version_xml,
)
from vm_launcher.images import load_image
from vm_launcher.images import read_public_key as read_image_key
from vm_launcher.images.manifest import MANIFEST, SIGNATURE
from vm_launcher.images.store import sha256_file

SNIPPETS = "copilot-snippets"
TEMPLATES = "templates"
CONFIG = "config.xml"
"""In every directory that make_project has made."""
MOST_LAUNCHER_BYTES = 100_000_000
_LAUNCHER_MARK = b"#!/bin/sh\n# vm-launcher for Linux on x86-64 "
"""How the single file begins: deploy/launcher/header.sh."""


class ProjectError(CopilotError):
    code = ErrorCode.CONFLICT


@dataclass(frozen=True)
class Order:
    """What is to be assembled. `results`: how many of a workunit may be sent."""

    project: Path
    launcher: Path
    image: Path
    image_key: Path
    settings: TaskSettings
    app: str = "copilot"
    version: str = "1.00"
    results: int = 3
    key: PrivateKey | None = None


@dataclass(frozen=True)
class Assembled:
    directory: Path
    files: tuple[AppFile, ...]
    is_new: bool
    signed: bool
    to_compare: tuple[Path, ...]
    """New forms of templates that somebody has edited, which were kept."""
    other_credit: str | None
    """The version before this one, if its credit comes the other way."""


def assemble(order: Order, now: datetime) -> Assembled:
    """Raises `ProjectError`, or `ImageError` for an image that must not be booted."""
    _check(order)
    public = _project_key(order)
    target = order.project / "apps" / order.app / order.version / f"{PLATFORM}__{PLAN_CLASS}"
    with ExitStack() as stack:
        work = Path(stack.enter_context(_beside(order.project)))
        files = (*_files(order, work, now),)
        is_new = not target.exists()
        if is_new:
            _install(files, target, work / "version")
        else:
            _compare(files, target, order)
    paths = [target / file.physical for file in files]
    if order.key is not None:
        sign(paths, order.key)
    signed = not unsigned(paths, public)
    return Assembled(target, files, is_new, signed, tuple(_texts(order)), _other_way(order))


def _check(order: Order) -> None:
    if not (order.project / CONFIG).is_file():
        raise ProjectError(
            f"{order.project} is no BOINC project's directory: it has no {CONFIG}",
            remedy="name the one that make_project has made, or a copy of it",
        )
    if not _is_launcher(order.launcher):
        raise ProjectError(
            f"--launcher: {order.launcher} is not the launcher's single file",
            remedy="build it: make launcher, then --launcher dist/vm-launcher",
        )


def _is_launcher(path: Path) -> bool:
    """By how it begins: what is not known to be ours is not run in order to find out."""
    if not path.is_file() or path.stat().st_size >= MOST_LAUNCHER_BYTES:
        return False
    with path.open("rb") as file:
        return file.read(len(_LAUNCHER_MARK)) == _LAUNCHER_MARK


def _project_key(order: Order) -> PublicKey | None:
    """By which clients will check what we sign, where the project's directory has it."""
    ours = order.key.public if order.key is not None else None
    path = order.project / "keys" / PUBLIC
    if not path.exists():
        return ours
    public = read_public_key(path)
    if ours not in (None, public):
        raise ProjectError(
            f"--sign: this key is not the private half of {path}",
            remedy="clients would refuse what it signs: give the project's own code_sign_private",
        )
    return public


def _beside(project: Path) -> tempfile.TemporaryDirectory[str]:
    """On the same file system, so that a directory is moved into its place at once."""
    return tempfile.TemporaryDirectory(dir=project, prefix=".copilot-")


def _files(order: Order, work: Path, now: datetime) -> Iterable[AppFile]:
    key = read_image_key(order.image_key)
    image = load_image(order.image, trusted_keys=[key], now=now, state=work / "state")
    settings = work / "launcher.toml"
    settings.write_text(settings_text(order.settings))
    sources = {
        "settings": settings,
        "key": order.image_key,
        "manifest": order.image / MANIFEST,
        "signature": order.image / SIGNATURE,
        "kernel": image.kernel,
        "initrd": image.initrd,
        "base": image.base,
        "agent": image.agent,
    }
    yield app_file(order.app, LAUNCHER, order.launcher, sha256_file(order.launcher))
    for name, source in sources.items():
        yield app_file(order.app, PARTS[name], source, sha256_file(source))


def _install(files: Iterable[AppFile], target: Path, part: Path) -> None:
    """Complete or not at all: update_versions may look at any time."""
    part.mkdir()
    for file in files:
        shutil.copyfile(file.source, part / file.physical)
        (part / file.physical).chmod(0o755 if file.main_program else 0o644)
    (part / VERSION_XML).write_text(version_xml(files))
    target.parent.mkdir(parents=True, exist_ok=True)
    part.rename(target)


def _compare(files: Iterable[AppFile], target: Path, order: Order) -> None:
    wanted = {file.physical for file in files}
    found = {path.name for path in target.iterdir() if path.suffix != ".sig"} - {VERSION_XML}
    differing = sorted(wanted ^ found)
    differing += [file.physical for file in files if file.physical in found
                  and sha256_file(target / file.physical) != sha256_file(file.source)]  # fmt: skip
    text = target / VERSION_XML
    if not text.is_file() or text.read_text() != version_xml(files):
        differing.append(VERSION_XML)
    if differing:
        raise ProjectError(
            f"{order.app} {order.version} is there with other content: {', '.join(differing)}",
            remedy="give the new content a higher number: --version",
        )


def _texts(order: Order) -> Iterable[Path]:
    """Templates, which may have been edited, and snippets, which are only ours."""
    snippets = order.project / SNIPPETS
    for folder in (order.project / TEMPLATES, snippets):
        folder.mkdir(exist_ok=True)
    own = OwnFiles(order.project, snippets / "templates.sha256")
    made = {
        f"{order.app}_in": templates.input_template(order.settings, order.results),
        f"{order.app}_out": templates.output_template(),
    }
    for name, text in made.items():
        new = order.project / TEMPLATES / f"{name}.new"
        new.unlink(missing_ok=True)
        if not own.write(f"{TEMPLATES}/{name}", text):
            new.write_text(text)
            yield new
    (snippets / "plan_class_spec.xml").write_text(templates.plan_class(order.settings))
    (snippets / "project.xml").write_text(templates.project_xml(order.app))
    (snippets / "config.xml").write_text(templates.config_xml(order.app, order.settings))


def _other_way(order: Order) -> str | None:
    versions = order.project / "apps" / order.app
    before = version_before(versions, order.version)
    settings = settings_of(versions / before) if before else None
    other = settings is not None and settings.credit.way != order.settings.credit.way
    return before if other else None
