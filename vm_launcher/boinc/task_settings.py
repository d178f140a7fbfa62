"""launcher.toml: what a project says about its tasks; a signed file of the application version.

It holds no secrets: every volunteer gets the same.
"""

import ssl
import tomllib
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, StringConstraints, ValidationError

from copilot_agent.protocol.base import HOST_PORT, PublicKey, Strict, Url
from vm_launcher.egress import AllowEntryError, Entry
from vm_launcher.settings import SettingsError, put, refusal

TASK_SETTINGS = "launcher.toml"
"""Its logical name, as a task opens it."""

MAX_SETTINGS_BYTES = 1 << 18


def _reachable(text: str) -> str:
    """What the task will ask of it when it draws up what the guest may reach."""
    try:
        Entry.parse(text)
    except AllowEntryError as error:
        raise ValueError(f"is no host:port; {error.remedy}") from None
    return text


def _certificates(text: str) -> str:
    """As the pilot will load them."""
    if "PRIVATE KEY" in text:
        raise ValueError("holds a private key, and every volunteer would get it; certificates only")
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=text)
    except ssl.SSLError:
        raise ValueError("must be certificates in PEM form") from None
    return text


_HostPort = Annotated[
    str, StringConstraints(pattern=r"^[\x21-\x7e]{1,300}$"), AfterValidator(_reachable)
]
_HostPorts = Annotated[tuple[_HostPort, ...], Field(max_length=1000)]
_Duration = Annotated[int, Field(ge=1, le=30 * 86400)]


class TaskVm(Strict):
    """[vm]: upper bounds; the volunteer's preferences may make them less."""

    cpus: Annotated[int, Field(ge=1, le=256)] = 1
    memory_mib: Annotated[int, Field(ge=256, le=1 << 22)] = 512
    disk_mib: Annotated[int, Field(ge=64, le=1 << 26)] = 2048
    accelerator: Literal["auto", "kvm", "tcg"] = "auto"
    allow_emulation: bool = True
    boot_seconds_kvm: Annotated[float, Field(ge=1, le=3600)] = 60.0
    boot_seconds_tcg: Annotated[float, Field(ge=1, le=3600)] = 120.0
    restarts: Annotated[int, Field(ge=0, le=1000)] = 5
    nice: Annotated[int, Field(ge=0, le=19)] = 19


class TaskTimes(Strict):
    """[task], in seconds."""

    task_seconds: _Duration = 86400
    """Running time of the VM after which no further job is taken."""
    grace_seconds: Annotated[int, Field(ge=0, le=7 * 86400)] = 3600
    """How long the jobs that run then may still take."""
    idle_seconds: _Duration = 300
    """Without a job for so long: the VM is saved and the task leaves for a while."""
    idle_exit_seconds: Annotated[int, Field(ge=1, le=86400)] = 600
    """That while; BOINC's client allows a day at most."""
    idle_end_seconds: _Duration = 14400
    """Without a job for so long in all: the task ends."""


class TaskCredit(Strict):
    """[credit]: the one way in which the project grants it."""

    way: Literal["receipts", "trickles"] = "receipts"
    trickle_seconds: Annotated[int, Field(ge=1, le=86400)] = 3600
    """Between two trickles, if they are the way."""

    @property
    def other(self) -> Literal["receipts", "trickles"]:
        return "trickles" if self.way == "receipts" else "receipts"


class TaskSettings(Strict):
    manager: Annotated[Url, Field(max_length=300), AfterValidator(_reachable)]
    xmpp: Annotated[
        str,
        Field(pattern=rf"^({HOST_PORT})?$"),
        AfterValidator(lambda text: text and _reachable(text)),
    ] = ""
    """host:port of the manager's XMPP server; then the guest talks to the manager over it."""
    manager_keys: Annotated[tuple[PublicKey, ...], Field(max_length=20)] = ()
    """The manager's, present and former: receipts that none of them signed are not kept."""
    window: Annotated[int, Field(ge=0, le=64)] = 1
    allow: _HostPorts = ()
    """host:port of public addresses that the guest may reach besides the manager."""
    allow_local: _HostPorts = ()
    """Same, and they may lie in the volunteer's own network: for an institute's own computers."""
    ca_certificates: Annotated[
        str,
        StringConstraints(max_length=200_000, pattern=r"^[\x09\x0a\x0d\x20-\x7e]*$"),
        AfterValidator(lambda text: text and _certificates(text)),
    ] = ""
    """PEM, trusted for the manager besides the image's own."""
    vm: TaskVm = TaskVm()
    task: TaskTimes = TaskTimes()
    credit: TaskCredit = TaskCredit()


def load_task_settings(
    path: Path | None, flags: Mapping[str, object] = MappingProxyType({})
) -> TaskSettings:
    """`flags` are keyed by dotted path, as in `vm.cpus`, and go before the file; `None` means not
    given. Raises `SettingsError` that names each field.
    """
    tree: dict[str, object] = _read(path) if path is not None else {}
    for name, value in flags.items():
        if value is not None:
            put(tree, name, value)
    try:
        return TaskSettings.model_validate(tree)
    except ValidationError as error:
        where = " or ".join([*(["flags"] if flags else []), *([path.name] if path else [])])
        raise refusal(error, where) from None


def _read(path: Path) -> dict[str, object]:
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_SETTINGS_BYTES + 1)
    except OSError as error:
        raise SettingsError(f"{path} cannot be read: {error.strerror}") from None
    if len(data) > MAX_SETTINGS_BYTES:
        raise SettingsError(f"{path} is longer than {MAX_SETTINGS_BYTES} bytes")
    try:
        return tomllib.loads(data.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise SettingsError(f"{path} is not valid TOML: {error}") from None
