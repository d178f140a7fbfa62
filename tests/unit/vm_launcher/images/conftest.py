"""A small signed image to spoil."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import lzma
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from vm_launcher.images.signing import sign_manifest

NOW = dt.datetime(2026, 6, 1, tzinfo=dt.UTC)


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@dataclass
class SmallImage:
    """Files in `directory`; `write` signs whatever `manifest` says at that moment."""

    directory: Path
    key: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)
    manifest: dict[str, Any] = field(default_factory=dict)

    def make(self, serial: int = 5) -> SmallImage:
        self.directory.mkdir(parents=True, exist_ok=True)
        layers = [self._layer(role, packed=role in ("kernel", "base")) for role in ROLES]
        self.manifest = {
            "version": 1,
            "name": "small",
            "serial": serial,
            "created": "2026-01-01T00:00:00Z",
            "expires": "2027-01-01T00:00:00Z",
            "architecture": "amd64",
            "command_line": "console=ttyS0",
            "layers": layers,
            "contents": {"packages": [{"name": "libc6", "version": "2.41-12"}], "wheels": []},
        }
        return self.write()

    def write(self) -> SmallImage:
        data = json.dumps(self.manifest).encode()
        (self.directory / "manifest.json").write_bytes(data)
        (self.directory / "manifest.json.sig").write_bytes(sign_manifest(data, self.key))
        return self

    def plain(self, role: str) -> bytes:
        return f"the {role} ".encode() * 1000

    def _layer(self, role: str, packed: bool) -> dict[str, Any]:
        plain = self.plain(role)
        data = lzma.compress(plain) if packed else plain
        file = f"{role}.xz" if packed else role
        (self.directory / file).write_bytes(data)
        layer: dict[str, Any] = {
            "role": role, "file": file, "sha256": digest(data), "size": len(data),
        }  # fmt: skip
        if packed:
            layer |= {
                "packing": "xz", "unpacked_sha256": digest(plain), "unpacked_size": len(plain),
            }  # fmt: skip
        return layer


ROLES = ("kernel", "initrd", "base", "agent")


@pytest.fixture
def image(tmp_path: Path) -> SmallImage:
    return SmallImage(tmp_path / "image").make()
