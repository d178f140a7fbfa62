"""What config.xml of a BOINC project says about its database and its files."""

import socket
import xml.etree.ElementTree as ET
from dataclasses import dataclass, field
from pathlib import Path

from job_manager_adapter.boinc_project.settings import SettingsError

_SOCKETS = ("/run/mysqld/mysqld.sock", "/var/lib/mysql/mysql.sock", "/tmp/mysql.sock")  # noqa: S108
"""Where the database listens on this host, by the distributions' habits."""


@dataclass(frozen=True)
class Project:
    directory: Path
    upload_dir: Path
    fanout: int
    """0: all files lie in the directory itself."""
    db_name: str
    db_user: str
    db_host: str = ""
    """Empty: on this host, by its socket."""
    db_port: int = 3306
    db_password: str = field(default="", repr=False)


def load_project(directory: Path) -> Project:
    """Raises SettingsError, which never quotes the file: the database's password is in it."""
    path = directory / "config.xml"
    try:
        config = ET.fromstring(path.read_text()).find("config")  # noqa: S314 - the operator's own
    except (OSError, ValueError, ET.ParseError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no XML"
        raise SettingsError(
            f"{path} cannot be read: {reason}", remedy="say --project DIRECTORY"
        ) from None
    values = {} if config is None else {part.tag: (part.text or "").strip() for part in config}
    host, _, port = values.get("db_host", "").partition(":")
    return Project(
        directory=directory,
        upload_dir=directory / _needed(values, "upload_dir", path),
        fanout=_number(values.get("uldl_dir_fanout", "0"), "uldl_dir_fanout", path, 1 << 20),
        db_name=_needed(values, "db_name", path),
        db_user=values.get("db_user", ""),
        db_host="" if host in ("", "localhost", socket.gethostname()) else host,
        db_port=_number(port, "db_host", path, 65535) if port else 3306,
        db_password=values.get("db_passwd", ""),
    )


def database_socket(given: Path | None) -> Path | None:
    """`given`, or the first of the usual ones that is there."""
    return given or next((path for path in map(Path, _SOCKETS) if path.exists()), None)


def _needed(values: dict[str, str], name: str, path: Path) -> str:
    if not values.get(name):
        raise SettingsError(f"{path}: there is no <{name}> in <config>")
    return values[name]


def _number(text: str, name: str, path: Path, most: int) -> int:
    if not (text.isascii() and text.isdigit()) or int(text) > most:
        raise SettingsError(f"{path}: <{name}> is no number up to {most}")
    return int(text)
