"""`copilot-manager doctor`: what is wrong on this machine, and what to do about it."""

import argparse
import asyncio
import os
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from copilot_agent.protocol.errors import CopilotError
from job_manager_adapter import descriptors
from job_manager_adapter.settings import Settings, XmppSettings

MIB = 1 << 20
_PRODUCT_YEAR = 2026


@dataclass(frozen=True)
class Finding:
    """One check; `remedy` is empty when all is well."""

    what: str
    result: str
    remedy: str = ""


def add_parser(commands: Any) -> None:
    doctor = commands.add_parser("doctor", help="check data directory, disk, database, port, clock")
    doctor.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    findings = list(examine(args.load_settings(args)))
    for finding in findings:
        print(f"{'BAD' if finding.remedy else 'ok':4} {finding.what}: {finding.result}")
        if finding.remedy:
            print(f"     → {finding.remedy}")
    return 1 if any(finding.remedy for finding in findings) else 0


def examine(settings: Settings) -> Iterator[Finding]:
    """Every check, the cheap ones first."""
    checks: tuple[Callable[[Settings], Finding], ...] = (
        _data_dir, _disk, _open_files, _keys, _database, _port, _clock
    )  # fmt: skip
    for check in checks:
        yield check(settings)
    yield from asyncio.run(_adapters(settings))
    if settings.xmpp is not None:
        yield asyncio.run(_xmpp(settings, settings.xmpp))


def _data_dir(settings: Settings) -> Finding:
    path = settings.data_dir
    if not path.exists():
        return Finding("data directory", f"{path} will be made by the first serve")
    if not os.access(path, os.W_OK | os.X_OK):
        return Finding("data directory", f"{path} is not writable", f"chown {path} to this user")
    if path.stat().st_mode & 0o077:
        return Finding("data directory", f"others may read {path}", f"chmod 700 {path}")
    return Finding("data directory", str(path))


def _disk(settings: Settings) -> Finding:
    path = _existing(settings.data_dir)
    free, floor = shutil.disk_usage(path).free // MIB, settings.limits.free_space_mib
    if free < floor:
        remedy = f"free some, or lower limits.free_space_mib = {floor}"
        return Finding("disk", f"{free} MiB free: uploads are refused", remedy)
    return Finding("disk", f"{free} MiB free, uploads stop below {floor}")


def _open_files(_: Settings) -> Finding:
    most = descriptors.limit()
    shown = f"{most}: as many pilots can be attached, less {descriptors.SPARE}"
    if most < descriptors.FEW:
        return Finding("open files", shown, "LimitNOFILE=65536 in the unit, or `ulimit -Hn 65536`")
    return Finding("open files", shown)


def _keys(settings: Settings) -> Finding:
    loose = [path.name for path in settings.keys.glob("*.key") if path.stat().st_mode & 0o077]
    if loose:
        remedy = f"chmod 600 {settings.keys}/*.key, and think about who could read them"
        return Finding("keys", f"others may read {', '.join(loose)}", remedy)
    return Finding("keys", "only this user may read them")


def _database(settings: Settings) -> Finding:
    if settings.store.url is not None:
        return _postgres(settings.store.url.get_secret_value())
    if not settings.database.exists():
        return Finding("database", "none yet")
    try:
        problems = asyncio.run(_check_database(settings.database))
    except CopilotError as error:
        return Finding("database", error.message, error.remedy or "restore a backup")
    if problems:
        remedy = "stop the manager and restore the latest backup (copilot-manager backup --help)"
        return Finding("database", "; ".join(problems[:5]), remedy)
    return Finding("database", f"whole, {settings.database.stat().st_size // 1024} KiB")


def _postgres(url: str) -> Finding:
    from job_manager_adapter.store.postgres import PostgresStore

    async def ask() -> str:
        store = PostgresStore(url)
        await store.open()
        try:
            return await store.describe()
        finally:
            await store.close()

    try:
        return Finding("database", asyncio.run(ask()))
    except CopilotError as error:
        return Finding("database", error.message, error.remedy or "see the server's log")


async def _check_database(path: Path) -> list[str]:
    from job_manager_adapter.store.sqlite import SqliteStore

    store = SqliteStore(path)
    await store.open()
    try:
        return await store.check()
    finally:
        await store.close()


def _port(settings: Settings) -> Finding:
    server = settings.server
    where = f"{server.listen}:{server.port}"
    if (settings.data_dir / "manager.url").exists():
        return Finding("port", "a manager serves already, or was killed while it did")
    family = socket.AF_INET6 if ":" in server.listen else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((server.listen, server.port))
        except OSError as error:
            return Finding("port", f"{where}: {error.strerror}", "choose another server.port")
    return Finding("port", f"{where} is free")


def _clock(_: Settings) -> Finding:
    now = time.gmtime()
    shown = time.strftime("%Y-%m-%d %H:%M:%S UTC", now)
    if now.tm_year < _PRODUCT_YEAR:
        return Finding("clock", shown, "set the clock: tokens and links go by it")
    return Finding("clock", shown)


async def _xmpp(settings: Settings, xmpp: XmppSettings) -> Finding:
    """Only while no manager serves: the server would cut it off in favour of this connection."""
    from copilot_agent.xmpp.component import ComponentStream
    from copilot_agent.xmpp.errors import XmppError
    from job_manager_adapter.transports.xmpp.build import component_login

    if (settings.data_dir / "manager.url").exists():
        return Finding("XMPP", "not tried: a manager serves already, its log says whether it works")
    try:
        stream = ComponentStream(component_login(xmpp))
        await stream.open()
        await stream.close()
    except CopilotError as error:
        return Finding("XMPP", error.message, error.remedy)
    except XmppError as error:
        remedy = f"is the XMPP server at {xmpp.listen} running, with this component and secret?"
        return Finding("XMPP", f"{xmpp.component}: {error.message}", remedy)
    return Finding("XMPP", f"{xmpp.component} is let in at {xmpp.listen}")


async def _adapters(settings: Settings) -> list[Finding]:
    from job_manager_adapter.app import build_adapters

    try:
        adapters = build_adapters(settings)
    except CopilotError as error:
        return [Finding("adapters", error.message, error.remedy)]
    found = []
    for name, adapter in adapters.items():
        for item in await adapter.doctor():
            remedy = "" if item.good else item.remedy or "see docs of the adapter"
            found.append(Finding(f"experiment {name}, {item.subject}", item.message, remedy))
        await adapter.close()
    return found


def _existing(path: Path) -> Path:
    while not path.exists():
        path = path.parent
    return path
