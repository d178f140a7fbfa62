"""What the host's owner decides: a TOML file, overridden by flags."""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError

from copilot_agent.protocol.base import HOST_PORT, PublicKey, Strict, Url
from copilot_agent.protocol.errors import CopilotError, ErrorCode, FieldError
from copilot_agent.protocol.words import dotted, in_words
from vm_launcher.drivers.base import VmSpec

GUEST_MEMORY_MIB = 192
"""What kernel and agent need; the rest of the VM's memory is for jobs."""


def disk_for_jobs_mib(disk_mib: int) -> int:
    """What is left of the scratch disk once the guest has made a file system on it."""
    return disk_mib * 15 // 16 - 16


class SettingsError(CopilotError):
    code = ErrorCode.INVALID_REQUEST


class VmSettings(Strict):
    """[vm]: how much of this host the VM may use, and how it runs."""

    cpus: Annotated[int, Field(ge=1, le=256)] = 1
    cpu_percent: Annotated[int, Field(ge=1, le=100)] = 100
    """Share of each CPU; below 100 the VM runs and rests in turn."""
    memory_mib: Annotated[int, Field(ge=256, le=1 << 22)] = 512
    disk_mib: Annotated[int, Field(ge=64, le=1 << 26)] = 2048
    nice: Annotated[int, Field(ge=0, le=19)] = VmSpec.model_fields["nice"].default
    run_as: str = "nobody"
    """When the launcher is root, the VM runs as this user (name or number)."""
    driver: str = "qemu"
    accelerator: Literal["auto", "kvm", "tcg"] = "auto"
    allow_emulation: bool = True
    """Software emulation (slow, about a tenth of the speed) where KVM is of no use."""
    boot_seconds_kvm: Annotated[float, Field(ge=1, le=3600)] = 60.0
    boot_seconds_tcg: Annotated[float, Field(ge=1, le=3600)] = 120.0
    restarts: Annotated[int, Field(ge=0, le=1000)] = 5
    """How often in a row a VM that failed is booted again."""


class NetworkSettings(Strict):
    """[network]: what the guest may reach besides the manager."""

    allow: Annotated[tuple[str, ...], Field(max_length=1000)] = ()
    """host:port of public addresses."""
    allow_local: Annotated[tuple[str, ...], Field(max_length=1000)] = ()
    """host:port that may lie in the host's own network."""
    bytes_per_second: Annotated[int, Field(ge=1024)] | None = None
    bytes_per_day: Annotated[int, Field(ge=0)] | None = None


class Settings(Strict):
    manager: Url
    image: Path
    image_key: Path
    enrolment_file: Path
    state: Path
    manager_keys: Annotated[tuple[PublicKey, ...], Field(max_length=20)] = ()
    """The manager's, present and former, as `copilot whoami` shows them: receipts that none of
    them signed are not kept. Without any the guest is believed."""
    ca_file: Path | None = None
    """PEM certificates trusted for the manager besides the image's own."""
    xmpp: Annotated[str, Field(pattern=rf"^({HOST_PORT})?$")] = ""
    """host:port of the manager's XMPP server; then the guest talks to the manager over it."""
    window: Annotated[int, Field(ge=0, le=64)] = 1
    vm: VmSettings = VmSettings()
    network: NetworkSettings = NetworkSettings()


def load_settings(file: Path | None, flags: Mapping[str, object]) -> Settings:
    """`flags` are keyed by dotted path, as in `vm.cpus`; `None` means not given.

    Paths in the file are relative to the file. Raises `SettingsError` that names each field.
    """
    tree: dict[str, object] = _read(file) if file is not None else {}
    for name, value in flags.items():
        if value is not None:
            put(tree, name, value)
    try:
        return Settings.model_validate(tree)
    except ValidationError as error:
        where = f"flags or {file}" if file is not None else "flags"
        raise refusal(error, where) from None


def _read(file: Path) -> dict[str, object]:
    try:
        tree: dict[str, object] = tomllib.loads(file.read_text("utf-8"))
    except OSError as error:
        raise SettingsError(f"{file} cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise SettingsError(f"{file} is not valid TOML: {error}") from None
    for name in ("image", "image_key", "enrolment_file", "state", "ca_file"):
        value = tree.get(name)
        if isinstance(value, str):
            tree[name] = str(file.parent / Path(value).expanduser())
    return tree


def put(tree: dict[str, object], dotted: str, value: object) -> None:
    section, _, name = dotted.rpartition(".")
    if not section:
        tree[name] = value
        return
    inner = tree.setdefault(section, {})
    if isinstance(inner, dict):
        inner[name] = value


def refusal(error: ValidationError, where: str) -> SettingsError:
    """Names each field; `where` says what to correct."""
    errors = tuple(
        FieldError(field=dotted(one["loc"]), message=in_words(one)) for one in error.errors()
    )
    said = "; ".join(f"{one.field}: {one.message}" for one in errors)
    return SettingsError(f"settings: {said}", remedy=f"correct the {where}", errors=errors)
