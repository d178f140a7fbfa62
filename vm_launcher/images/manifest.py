"""manifest.json: what an image consists of. Its exact bytes are signed (manifest.json.sig)."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, model_validator

MANIFEST = "manifest.json"
SIGNATURE = "manifest.json.sig"
UNPACKED = "unpacked"
"""A directory of unpacked layers, named by their sha256."""
MAX_MANIFEST_BYTES = 1 << 20
MAX_LAYER_BYTES = 1 << 30

Role = Literal["kernel", "initrd", "base", "agent"]
ROLES: tuple[Role, ...] = ("kernel", "initrd", "base", "agent")

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9.+_-]{0,127}$")]
Version = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9.+~:_-]{0,127}$")]
Size = Annotated[int, Field(gt=0, le=MAX_LAYER_BYTES)]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Layer(_Model):
    """One file of the image; sizes in bytes. A file packed with xz boots only when unpacked."""

    role: Role
    file: Name
    sha256: Sha256
    size: Size
    packing: Literal["none", "xz"] = "none"
    unpacked_sha256: Sha256 | None = None
    unpacked_size: Size | None = None

    @model_validator(mode="after")
    def _packed_layers_say_both(self) -> Layer:
        given = self.unpacked_sha256 is not None and self.unpacked_size is not None
        if given != (self.packing == "xz"):
            raise ValueError(
                "unpacked_sha256 and unpacked_size belong to packing xz, and only there"
            )
        return self

    @property
    def boot_sha256(self) -> str:
        """Of the bytes that the VM gets."""
        return self.unpacked_sha256 or self.sha256


class Part(_Model):
    """A Debian package or a wheel inside."""

    name: Name
    version: Version


class Contents(_Model):
    packages: Annotated[tuple[Part, ...], Field(max_length=2000)]
    wheels: Annotated[tuple[Part, ...], Field(max_length=2000)]


class Manifest(_Model):
    """`serial` only grows from release to release."""

    version: Literal[1]
    name: Name
    serial: Annotated[int, Field(ge=1, lt=1 << 53)]
    created: AwareDatetime
    expires: AwareDatetime
    architecture: Literal["amd64"]
    command_line: Annotated[str, Field(pattern=r"^[ -~]{0,1000}$")]
    layers: Annotated[tuple[Layer, ...], Field(max_length=len(ROLES))]
    contents: Contents

    @model_validator(mode="after")
    def _one_layer_per_role(self) -> Manifest:
        if sorted(layer.role for layer in self.layers) != sorted(ROLES):
            raise ValueError(f"layers must be one each of {', '.join(ROLES)}")
        if len({layer.file for layer in self.layers}) != len(ROLES):
            raise ValueError("two layers share one file")
        return self

    def layer(self, role: Role) -> Layer:
        return next(layer for layer in self.layers if layer.role == role)


class Signature(_Model):
    """Ed25519 over the bytes of manifest.json; `signature` in base64."""

    key_id: Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
    signature: Annotated[str, Field(pattern=r"^[A-Za-z0-9+/]{86}==$")]
