"""The built VM image with `scripted_guest` in the agent's place, signed with a key of its own."""

import os
import shutil
import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.harness import scripted_guest
from vm_launcher.drivers.base import Disk, VmSpec
from vm_launcher.images import Image, load_image
from vm_launcher.images.manifest import MANIFEST, SIGNATURE, Manifest
from vm_launcher.images.signing import public_pem, sign_manifest
from vm_launcher.images.store import sha256_file

REPOSITORY = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class ScriptedImage:
    directory: Path
    key_file: Path
    image: Image


def built_image() -> Path:
    """The image that `make image` has built; a missing one fails the test."""
    directory = Path(os.environ.get("COPILOT_IMAGE", REPOSITORY / ".cache" / "image"))
    if not (directory / MANIFEST).exists():
        pytest.fail(f"no VM image in {directory}: run `make image` first")
    return directory


def scripted_image(work: Path) -> ScriptedImage:
    """Takes a second; `work` becomes its home."""
    directory = work / "image"
    shutil.copytree(built_image(), directory)
    manifest = Manifest.model_validate_json((directory / MANIFEST).read_bytes())
    agent = manifest.layer("agent")
    _agent_layer(work / "tree", directory / agent.file)
    scripted = agent.model_copy(
        update={
            "sha256": sha256_file(directory / agent.file),
            "size": (directory / agent.file).stat().st_size,
        }
    )
    layers = tuple(scripted if one.role == "agent" else one for one in manifest.layers)
    data = manifest.model_copy(update={"layers": layers}).model_dump_json().encode()
    key = Ed25519PrivateKey.generate()
    (directory / MANIFEST).write_bytes(data)
    (directory / SIGNATURE).write_bytes(sign_manifest(data, key))
    key_file = work / "image-key.pub"
    key_file.write_bytes(public_pem(key.public_key()))
    image = load_image(
        directory, trusted_keys=[key.public_key()], now=datetime.now(UTC), state=work / "state"
    )
    return ScriptedImage(directory, key_file, image)


def spec(image: Image, home: Path, **changes: object) -> VmSpec:
    """A small VM of that image under software emulation; `home` is its own."""
    made = VmSpec(
        name="vm-test",
        directory=home / "vm",
        ctrl_socket=home / "ctrl",
        net_socket=home / "net",
        kernel=image.kernel,
        initrd=image.initrd,
        command_line=image.command_line,
        disks=(Disk(serial="base", path=image.base), Disk(serial="agent", path=image.agent)),
        image_sha256=image.sha256,
        memory_mib=512,
        disk_mib=256,
    )
    return made.model_copy(update=changes)


def _agent_layer(tree: Path, target: Path) -> None:
    package = tree / "copilot_agent"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    shutil.copyfile(scripted_guest.__file__, package / "__main__.py")
    target.unlink()
    command = [
        "mksquashfs",
        str(tree),
        str(target),
        "-all-root",
        "-noappend",
        "-quiet",
        "-no-progress",
    ]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
