"""A BOINC project's directory to put the application into."""

import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from tests.unit.vm_launcher.images.conftest import SmallImage
from vm_launcher.cli import main
from vm_launcher.images.signing import public_pem

REPOSITORY = Path(__file__).resolve().parents[4]
DIRECTORY = "apps/copilot/{}/x86_64-pc-linux-gnu__copilot_vm"
MARKED = (REPOSITORY / "deploy/launcher/header.sh").read_bytes()


def parse(text: str) -> ET.Element:
    return ET.fromstring(text)  # noqa: S314 - our own


class Project:
    """A BOINC project's directory, a launcher and an image for it."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.root = home / "project"
        self.root.mkdir()
        self.launcher = home / "vm-launcher"
        self.launcher.write_bytes(MARKED)
        (self.root / "config.xml").write_text("<boinc></boinc>")
        self.image = SmallImage(home / "image").make()
        self.image.manifest["expires"] = "2100-01-01T00:00:00Z"
        self.image.write()
        key = self.image.directory / "image-key.pub"
        key.write_bytes(public_pem(self.image.key.public_key()))

    def make(self, *words: str) -> int:
        return main([
            *("boinc-project", str(self.root), "--launcher", str(self.launcher)),
            *("--image", str(self.image.directory), "--manager", "https://copilot.example.org"),
            *words,
        ])  # fmt: skip

    def version(self, number: str = "1.00") -> Path:
        return self.root / DIRECTORY.format(number)

    def files(self, number: str = "1.00") -> dict[str, Path]:
        """By logical name; the main program has none."""
        tree = parse((self.version(number) / "version.xml").read_text())
        return {
            one.findtext("logical_name", ""): self.version(number)
            / one.findtext("physical_name", "")
            for one in tree.iter("file")
        }

    def left(self) -> set[str]:
        """What was made."""
        return {path.name for path in self.root.iterdir()} - {"config.xml"}

    def everything(self) -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in self.root.rglob("*") if path.is_file()}

    def template(self, name: str) -> ET.Element:
        return parse((self.root / "templates" / name).read_text())


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def number(tree: ET.Element, name: str) -> float:
    return float(tree.findtext(f"workunit/{name}", "nan"))
