"""An application version: which files it has, what they are called, and version.xml.

The format is that of BOINC's update_versions. No file of a project ever changes under its name, so
each name holds a hash of the content: what is the same in the next version is not sent again.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

from vm_launcher.boinc_project.names import PLATFORM

VERSION_XML = "version.xml"

API_VERSION = "7.20.5"
"""Of BOINC's runtime protocol; clients take anything below 6 for the old shared memory."""

_HASH_DIGITS = 16


@dataclass(frozen=True)
class AppFile:
    """`source` is where it lies now; `logical` is the name that the task opens."""

    physical: str
    source: Path
    logical: str = ""
    main_program: bool = False
    gzip: bool = False
    """Sent compressed, and unpacked by the client."""


@dataclass(frozen=True)
class Part:
    """`stem` and `ending` of the physical name, between them comes the hash."""

    stem: str
    ending: str
    logical: str = ""
    main_program: bool = False
    gzip: bool = False


# No physical name may contain ".sig": update_versions would take the file for a signature.
LAUNCHER = Part("vm-launcher", f"_{PLATFORM}", main_program=True)
PARTS = {
    "settings": Part("launcher", ".toml", "launcher.toml"),
    "key": Part("image-key", ".pub", "image-key.pub"),
    "manifest": Part("manifest", ".json", "manifest.json"),
    "signature": Part("manifest-signature", ".json", "manifest.json.sig"),
    "kernel": Part("vmlinux", "", "vmlinux", gzip=True),
    "initrd": Part("initrd", "", "initrd", gzip=True),
    "base": Part("base", ".squashfs", "base.squashfs", gzip=True),
    "agent": Part("agent", ".squashfs", "agent.squashfs"),
}


def app_file(app: str, part: Part, source: Path, sha256: str) -> AppFile:
    """One download directory serves all applications of a project, so `app` is in the name."""
    name = f"{app}_{part.stem}_{sha256[:_HASH_DIGITS]}{part.ending}"
    return AppFile(name, source, part.logical, part.main_program, part.gzip)


def version_xml(files: Iterable[AppFile]) -> str:
    lines = [
        "<version>",
        f"    <api_version>{API_VERSION}</api_version>",
        "    <is_wrapper/>",
        "    <dont_throttle/>",
        "    <needs_network/>",
        *(line for file in files for line in _file_lines(file)),
        "</version>",
    ]
    return "\n".join(lines) + "\n"


def _file_lines(file: AppFile) -> list[str]:
    lines = ["    <file>", f"        <physical_name>{escape(file.physical)}</physical_name>"]
    if file.logical:
        lines.append(f"        <logical_name>{escape(file.logical)}</logical_name>")
    flags = {"main_program": file.main_program, "gzip": file.gzip}
    lines += [f"        <{name}/>" for name, given in flags.items() if given]
    return [*lines, "    </file>"]
