"""`copilot-manager backup`: a copy to start again from, made while the manager serves."""

import argparse
import asyncio
import os
import shutil
import time
from pathlib import Path
from typing import Any

from copilot_agent.protocol.errors import CopilotError, ErrorCode
from job_manager_adapter.settings import Settings

_HELP = """Writes TARGET/<time>/ with
  manager.db    a consistent copy of the database (jobs, pilots, ledger, tokens)
                (manager.dump, by pg_dump, where the store is PostgreSQL)
  keys/         the manager's keys: keep them as safe as the originals
  files.list    SHA-256 and size of every stored file
  files/        the files themselves, with --files (hard links where possible)

To restore: stop the manager; move its data directory away; copy the backup to that place
(`cp -a TARGET/<time> DATA_DIR`); `copilot-manager doctor`; start it. Without files/, jobs whose
inputs are gone fail at stage-in until the files are uploaded again (`copilot job retry`).
Leases that were open at the time of the backup get a fresh grace period; attempts that ended
since are reported again by their pilots.

To restore PostgreSQL: stop all managers; `createdb NEW`; `pg_restore --no-owner --dbname=NEW
TARGET/<time>/manager.dump`; put keys/, shared.id and files/ to store.shared_dir (or the data
directory); set store.url to the new database; `copilot-manager doctor`; start them.
"""


def add_parser(commands: Any) -> None:
    backup = commands.add_parser(
        "backup",
        help="copy the database and keys while the manager serves",
        description=_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    backup.add_argument("target", type=Path, metavar="TARGET")
    backup.add_argument("--files", action="store_true", help="copy stored files too")
    backup.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    settings = args.load_settings(args)
    if settings.store.url is None and not settings.database.exists():
        raise CopilotError(
            f"there is no manager in {settings.data_dir}",
            remedy="give its --data-dir or --config",
            code=ErrorCode.NOT_FOUND,
        )
    target = args.target / time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    target.mkdir(parents=True, mode=0o700)
    asyncio.run(_copy_database(settings, target))
    _copy_keys(settings, target)
    count = _copy_files(settings, target, copy=args.files)
    print(f"{target}: database, keys, {count} files {'copied' if args.files else 'listed'}")
    return 0


async def _copy_database(settings: Settings, target: Path) -> None:
    from job_manager_adapter.app import build_store

    store, _ = build_store(settings)
    await store.open()
    try:
        await store.backup(target / ("manager.dump" if settings.store.url else "manager.db"))
    finally:
        await store.close()


def _copy_keys(settings: Settings, target: Path) -> None:
    (target / "keys").mkdir(mode=0o700)
    others = (settings.data_dir / "operator.token", settings.shared_dir / "shared.id")
    for name in [*settings.keys.glob("*.key"), *others]:
        if name.exists():
            folder = target / "keys" if name.suffix == ".key" else target
            shutil.copy2(name, folder / name.name)


def _copy_files(settings: Settings, target: Path, *, copy: bool) -> int:
    root, count = settings.files, 0
    with (target / "files.list").open("w", encoding="utf-8") as listing:
        for path in sorted((root / "blobs").glob("??/??/*")):
            listing.write(f"{path.name} {path.stat().st_size}\n")
            count += 1
    if copy:
        for part in ("blobs", "outputs", "owners"):
            shutil.copytree(root / part, target / "files" / part, copy_function=_link_or_copy)
    return count


def _link_or_copy(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
