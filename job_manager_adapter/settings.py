"""The manager's settings: one TOML file, every value with a default."""

import ipaddress
import os
import tomllib
from pathlib import Path
from typing import Annotated, Any, Self
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator

from copilot_agent.protocol.base import HostPort, Strict, Url, split_host_port
from copilot_agent.protocol.errors import CopilotError, ErrorCode, FieldError
from copilot_agent.protocol.ids import ExperimentName
from copilot_agent.protocol.words import dotted, in_words
from copilot_agent.protocol.xmpp import Domain, XmppAddress
from job_manager_adapter.copilot1_settings import Copilot1

DEFAULT_PORT = 8470
CONFIG_VARIABLE = "COPILOT_MANAGER_CONFIG"

Days = Annotated[float, Field(gt=0, le=3650)]


def default_data_dir() -> Path:
    """`$XDG_DATA_HOME/copilot-manager`, or root's usual place for a service's state."""
    if os.geteuid() == 0:
        return Path("/var/lib/copilot-manager")
    base = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(base) / "copilot-manager"


class Server(Strict):
    """Where the manager listens. Without TLS only on loopback, unless behind a proxy."""

    listen: Annotated[str, Field(max_length=64)] = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = DEFAULT_PORT
    """0 takes any free port; the file `manager.url` in the data directory says which."""
    public_url: Url | None = None
    """How pilots and users reach the manager, if not by the address it listens on."""
    tls_cert: Path | None = None
    tls_key: Path | None = None
    behind_proxy: bool = False
    """A proxy in front does TLS and limits connections."""

    @field_validator("public_url")
    @classmethod
    def _no_slash(cls, value: str | None) -> str | None:
        return value.rstrip("/") if value else value

    @field_validator("listen")
    @classmethod
    def _address(cls, value: str) -> str:
        if value != "localhost":
            ipaddress.ip_address(value)
        return value

    @property
    def loopback(self) -> bool:
        return self.listen == "localhost" or ipaddress.ip_address(self.listen).is_loopback

    @model_validator(mode="after")
    def _not_in_the_clear(self) -> Self:
        if bool(self.tls_cert) != bool(self.tls_key):
            raise ValueError("tls_cert and tls_key belong together: give both")
        if not (self.loopback or self.tls_cert or self.behind_proxy):
            raise ValueError(
                f"refusing to listen on {self.listen} in the clear: "
                "set tls_cert and tls_key, or behind_proxy = true (--behind-proxy)"
            )
        return self


class PolicySettings(Strict):
    heartbeat_seconds: Annotated[float, Field(ge=0.05, le=3600)] = 30.0
    """How often a silent pilot says that it lives."""
    lease_seconds: Annotated[float, Field(ge=0.5, le=86400)] = 300.0
    """How long a silent pilot keeps its jobs."""
    retry_seconds: Annotated[float, Field(ge=0, le=3600)] = 1.0
    """How long a job rests after its first failed attempt; doubles with each, up to 300 times."""
    access_token_seconds: Annotated[int, Field(ge=60, le=3600)] = 3600

    @model_validator(mode="after")
    def _lease_outlives_heartbeats(self) -> Self:
        if self.lease_seconds < 2 * self.heartbeat_seconds:
            raise ValueError(
                f"lease_seconds = {self.lease_seconds} is less than two heartbeats of "
                f"{self.heartbeat_seconds} s: raise it, or lower heartbeat_seconds"
            )
        return self


class Limits(Strict):
    max_body_mib: Annotated[int, Field(ge=1, le=64)] = 8
    """Of a JSON request; files have bounds of their own."""
    max_file_gib: Annotated[float, Field(gt=0, le=1 << 20)] = 100.0
    free_space_mib: Annotated[int, Field(ge=0, le=1 << 30)] = 512
    """Uploads are refused below this much free disk."""
    connections_per_address: Annotated[int, Field(ge=0, le=1_000_000)] = 256
    """0 is no limit. Loopback, and everything behind a proxy, is not counted."""
    request_seconds: Annotated[float, Field(ge=0.1, le=3600)] = 15.0
    """How long a client may take over its request's head, or a silent one stay."""


class Retention(Strict):
    jobs_days: Days = 30
    """Ended jobs and their outputs are forgotten after this."""
    inputs_days: Days = 14
    """Uploaded files go this long after the last job that wanted them."""


def _is_postgresql(url: str) -> bool:
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    # `postgresql:/x@y`, with one slash, would be taken for a database on this computer
    return url.startswith(("postgresql://", "postgres://")) and bool(parts.path.strip("/"))


class StoreSettings(Strict):
    """Where jobs are kept: in the data directory (SQLite), or in PostgreSQL."""

    url: SecretStr | None = None
    """postgresql://USER@HOST:5432/DATABASE; without one it is SQLite."""
    shared_dir: Path | None = None
    """Keys and files that all managers of one PostgreSQL database share; else in data_dir."""

    @field_validator("url")
    @classmethod
    def _postgresql(cls, value: SecretStr | None) -> SecretStr | None:
        """Messages do not quote it: there may be a password in it."""
        if value is not None and not _is_postgresql(value.get_secret_value()):
            raise ValueError("postgresql://USER@HOST:5432/DATABASE is wanted")
        return value

    @model_validator(mode="after")
    def _shared_only_with_others(self) -> Self:
        if self.shared_dir is not None and self.url is None:
            raise ValueError("shared_dir is for managers that share a database: give url too")
        return self


class XmppSettings(Strict):
    """`[xmpp]`: pilots may talk to this manager over an XMPP server; see docs/xmpp.md."""

    component: Domain
    """This manager's name in the server's configuration. Each manager has its own."""
    secret_file: Path
    """Holds what the server's configuration gives as the component's secret."""
    listen: HostPort = "127.0.0.1:5347"
    """Where the server listens for components: on this computer."""
    domain: Domain
    """Of the pilots' accounts."""
    server: HostPort
    """host:port where pilots reach the XMPP server."""

    @field_validator("listen")
    @classmethod
    def _loopback(cls, value: str) -> str:
        host, _ = split_host_port(value)
        if host != "localhost" and not ipaddress.ip_address(host).is_loopback:
            raise ValueError("the component's connection is not encrypted: loopback only")
        return value

    @field_validator("server")
    @classmethod
    def _reachable(cls, value: str) -> str:
        split_host_port(value)
        return value

    @property
    def address(self) -> XmppAddress:
        return XmppAddress(server=self.server, domain=self.domain, component=self.component)


class Experiment(Strict):
    """`[experiments.NAME]`: which adapter speaks to its scheduler, and that adapter's options."""

    adapter: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,31}$")] = "queue"
    options: dict[str, Any] = {}


class Settings(Strict):
    data_dir: Path = Field(default_factory=default_data_dir)
    server: Server = Server()
    policy: PolicySettings = PolicySettings()
    limits: Limits = Limits()
    retention: Retention = Retention()
    store: StoreSettings = StoreSettings()
    xmpp: XmppSettings | None = None
    experiments: dict[ExperimentName, Experiment] = {"default": Experiment()}
    copilot1: Copilot1 | None = None
    """Original agents of Co-Pilot 1; see docs/copilot1.md."""

    @model_validator(mode="after")
    def _known_experiments(self) -> Self:
        served = self.copilot1.experiments if self.copilot1 else ()
        if unknown := sorted(set(served) - self.experiments.keys()):
            raise ValueError(
                f"copilot1.experiments names {', '.join(unknown)}: add [experiments.{unknown[0]}]"
            )
        return self

    @property
    def database(self) -> Path:
        return self.data_dir / "manager.db"

    @property
    def shared_dir(self) -> Path:
        return self.store.shared_dir or self.data_dir

    @property
    def keys(self) -> Path:
        return self.shared_dir / "keys"

    @property
    def files(self) -> Path:
        return self.shared_dir / "files"


def config_file(explicit: Path | None) -> Path | None:
    """The file to read: as said, else $COPILOT_MANAGER_CONFIG, else /etc, else none."""
    if explicit:
        return explicit
    if variable := os.environ.get(CONFIG_VARIABLE):
        return Path(variable)
    usual = Path("/etc/copilot/manager.toml")
    return usual if usual.exists() else None


def read_config(path: Path | None) -> dict[str, Any]:
    """The file's raw content, {} without a file. Raises `CopilotError`."""
    if path is None:
        return {}
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise _wrong(f"no such file: {path}", "`copilot-manager config init` writes one") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise _wrong(f"{path}: {error}", "correct the line; values are TOML 1.0") from error


def load(path: Path | None = None, overrides: dict[str, Any] | None = None) -> Settings:
    """Settings from a file and from the command line's `overrides` ({"server.port": 0}).

    Raises `CopilotError` that names every wrong field.
    """
    content = read_config(path)
    for name, value in (overrides or {}).items():
        table = content
        *tables, leaf = name.split(".")
        for step in tables:
            table = table.setdefault(step, {})
        table[leaf] = value
    try:
        settings = Settings.model_validate(content)
    except ValidationError as error:
        errors = tuple(
            FieldError(
                field=dotted(item["loc"]) or "(file)",
                message=in_words(item),
            )
            for item in error.errors(include_url=False)
        )
        raise CopilotError(
            f"the settings of {path or 'the command line'} are wrong",
            remedy="`copilot-manager config show` prints every setting with its default",
            code=ErrorCode.INVALID_REQUEST,
            errors=errors,
        ) from error
    store = settings.store
    if store.shared_dir:
        shared = store.shared_dir.expanduser().resolve()
        store = store.model_copy(update={"shared_dir": shared})
    data_dir = settings.data_dir.expanduser().resolve()
    return settings.model_copy(update={"data_dir": data_dir, "store": store})


def _wrong(message: str, remedy: str) -> CopilotError:
    return CopilotError(message, remedy=remedy, code=ErrorCode.INVALID_REQUEST)
