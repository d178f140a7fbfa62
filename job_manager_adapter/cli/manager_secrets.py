"""`copilot-manager enrolment` and `token`: on the data directory, also while it serves."""

import argparse
import asyncio
import json
import os
import re
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel

from copilot_agent.protocol.errors import CopilotError, ErrorCode
from job_manager_adapter.services.context import RandomIds, SystemClock
from job_manager_adapter.services.enrolments import Enrolments
from job_manager_adapter.services.tokens import Tokens
from job_manager_adapter.settings import Settings
from job_manager_adapter.views import EnrolmentView, Role, TokenView

View = TypeVar("View", bound=BaseModel)
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_ENROLMENTS = """examples:
  copilot-manager enrolment create --count 3 --expires 7d            prints three secrets
  copilot-manager enrolment create --count 100 --directory secrets/  one file each, mode 0600
  copilot-manager enrolment create --launchers 2 --label workunit-17 for two hosts each
  copilot-manager enrolment list
  copilot-manager enrolment revoke e-…
"""
_TOKENS = """examples:
  copilot-manager token create --role experiment --experiment default --expires 90d
  copilot-manager token create --role operator --label alice --output quiet > token
  copilot-manager token list
  copilot-manager token revoke t-…
"""


def duration(text: str) -> float:
    """Seconds from `90s`, `15m`, `12h`, `7d` or `2w`."""
    match = re.fullmatch(r"([0-9]{1,7})([smhdw])", text)
    if not match or not int(match[1]):
        raise argparse.ArgumentTypeError(f"{text!r} is no duration such as 12h, 7d or 2w")
    return float(int(match[1]) * _UNITS[match[2]])


def _count(text: str) -> int:
    if not (text.isascii() and text.isdecimal()) or not 1 <= int(text) <= 10_000:
        raise argparse.ArgumentTypeError("a number from 1 to 10000")
    return int(text)


def add_parsers(commands: Any) -> None:
    _add_enrolments(commands)
    _add_tokens(commands)


def _noun(commands: Any, name: str, text: str, examples: str) -> Any:
    noun = commands.add_parser(
        name,
        help=text,
        description=text,
        epilog=examples,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    return noun.add_subparsers(required=True, metavar="ACTION")


def _action(actions: Any, name: str, text: str, run: Callable[..., int]) -> Any:
    action = actions.add_parser(name, help=text, description=text)
    action.add_argument("--output", choices=["table", "json", "quiet"], default="table")
    action.set_defaults(run=run)
    return action


def _add_enrolments(commands: Any) -> None:
    actions = _noun(commands, "enrolment", "secrets with which launchers enrol", _ENROLMENTS)
    create = _action(actions, "create", "make secrets; they are shown this once", create_enrolments)
    create.add_argument("--count", type=_count, default=1, metavar="N", help="default: 1")
    create.add_argument(
        "--expires", type=duration, default=30 * 86400.0, metavar="7d", help="default: 30d"
    )
    create.add_argument(
        "--launchers", type=_count, default=1, metavar="N", help="hosts for each secret (default 1)"
    )
    create.add_argument(
        "--label",
        default="",
        help="for people: whose, or what for; `copilot credit` understands host=17 user=4 team=2",
    )
    create.add_argument(
        "--directory", type=Path, metavar="DIR", help="write each secret to a file of its own"
    )
    _creating(create)
    _action(actions, "list", "enrolments, without their secrets", list_enrolments)
    revoke = _action(actions, "revoke", "no new boots with this secret", revoke_enrolment)
    revoke.add_argument("id", help="as `copilot-manager enrolment list` shows it")


def _add_tokens(commands: Any) -> None:
    actions = _noun(commands, "token", "tokens of users: experiments and operators", _TOKENS)
    create = _action(actions, "create", "make a token; it is shown this once", create_token)
    create.add_argument("--role", choices=[role.value for role in Role], required=True)
    create.add_argument("--experiment", metavar="NAME", help="needed with --role experiment")
    create.add_argument("--expires", type=duration, metavar="90d", help="default: never")
    create.add_argument("--label", default="", help="for people: whose, or what for")
    _creating(create)
    _action(actions, "list", "tokens, without their values", list_tokens)
    revoke = _action(actions, "revoke", "refuse this token from now on", revoke_token)
    revoke.add_argument("id", help="as `copilot-manager token list` shows it")


def _creating(create: Any) -> None:
    create.add_argument(
        "--new", action="store_true", help="also where no manager has served yet, in advance"
    )


def _served(args: argparse.Namespace) -> None:
    """A secret in another data directory than the manager's would be good for nothing.

    Raises `CopilotError` where none has ever served. With PostgreSQL the directory says nothing.
    """
    settings: Settings = args.load_settings(args)
    marks = (settings.keys, settings.data_dir / "operator.token")
    if args.new or settings.store.url or any(mark.exists() for mark in marks):
        return
    raise CopilotError(
        f"no manager has ever served with the data directory {settings.data_dir}",
        remedy="say --config FILE or --data-dir DIR as `copilot-manager serve` has it, or start it"
        " first; --new creates in advance",
        code=ErrorCode.INVALID_REQUEST,
    )


def create_enrolments(args: argparse.Namespace) -> int:
    _served(args)
    if args.directory:
        _private(args.directory)
    views = _with_enrolments(
        args,
        lambda enrolments: enrolments.create(
            count=args.count,
            expires_seconds=args.expires,
            launchers_allowed=args.launchers,
            label=args.label,
        ),
    )
    if args.directory:
        for view in views:
            _write_secret(args.directory / f"{view.id}.secret", view.secret or "")
        made = "1 secret" if len(views) == 1 else f"{len(views)} secrets"
        print(f"{made} written to {args.directory}", file=sys.stderr)
        views = [view.model_copy(update={"secret": None}) for view in views]
    _show(views, args.output, _enrolment_row, lambda view: view.secret or view.id)
    return 0


def list_enrolments(args: argparse.Namespace) -> int:
    views = _with_enrolments(args, lambda enrolments: enrolments.list())
    _show(views, args.output, _enrolment_row, lambda view: view.id)
    return 0


def revoke_enrolment(args: argparse.Namespace) -> int:
    view = _with_enrolments(args, lambda enrolments: enrolments.revoke(args.id))
    _show([view], args.output, _enrolment_row, lambda view: view.id)
    return 0


def create_token(args: argparse.Namespace) -> int:
    _served(args)
    view = _with_tokens(
        args,
        lambda tokens: tokens.create(
            Role(args.role), args.experiment, label=args.label, expires_seconds=args.expires
        ),
    )
    _show([view], args.output, _token_row, lambda view: view.token or view.id)
    return 0


def list_tokens(args: argparse.Namespace) -> int:
    views = _with_tokens(args, lambda tokens: tokens.list())
    _show(views, args.output, _token_row, lambda view: view.id)
    return 0


def revoke_token(args: argparse.Namespace) -> int:
    view = _with_tokens(args, lambda tokens: tokens.revoke(args.id))
    _show([view], args.output, _token_row, lambda view: view.id)
    return 0


Made = TypeVar("Made")


def _with_enrolments(
    args: argparse.Namespace, use: Callable[[Enrolments], Awaitable[Made]]
) -> Made:
    clock = SystemClock()
    return _on_store(args, lambda store, _: use(Enrolments(store, clock, RandomIds(clock))))


def _with_tokens(args: argparse.Namespace, use: Callable[[Tokens], Awaitable[Made]]) -> Made:
    clock = SystemClock()

    def work(store: Any, settings: Settings) -> Awaitable[Made]:
        from job_manager_adapter.app import service_config

        experiments = service_config(settings).experiments
        return use(Tokens(store, clock, RandomIds(clock), experiments=experiments))

    return _on_store(args, work)


def _on_store(args: argparse.Namespace, work: Callable[[Any, Settings], Awaitable[Made]]) -> Made:
    from job_manager_adapter.app import build_store

    settings = args.load_settings(args)
    settings.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)

    async def run() -> Made:
        store, _ = build_store(settings)
        await store.open()
        try:
            return await work(store, settings)
        finally:
            await store.close()

    return asyncio.run(run())


def _show(
    views: Sequence[View],
    mode: str,
    row: Callable[[View], dict[str, str]],
    key: Callable[[View], str],
) -> None:
    if mode == "json":
        print(json.dumps([view.model_dump(mode="json") for view in views], indent=2))
    elif mode == "quiet":
        for view in views:
            print(key(view))
    elif views:
        _table([row(view) for view in views])
    else:
        print("none", file=sys.stderr)


def _table(rows: Sequence[dict[str, str]]) -> None:
    """Columns without any content are left out."""
    kept = [title for title in rows[0] if any(row[title] for row in rows)]
    widths = {title: max(len(title), *(len(row[title]) for row in rows)) for title in kept}
    for row in [{title: title for title in kept}, *rows]:
        print("  ".join(f"{row[title]:{widths[title]}}" for title in kept).rstrip())


def _enrolment_row(view: EnrolmentView) -> dict[str, str]:
    return {
        "ENROLMENT": view.id,
        "EXPIRES": f"{view.expires_at:%Y-%m-%d %H:%M} UTC",
        "HOSTS": f"{len(view.hosts)} of {view.launchers_allowed}",
        "REVOKED": "yes" if view.revoked else "",
        "LABEL": _plain(view.label),
        "SECRET": view.secret or "",
    }


def _token_row(view: TokenView) -> dict[str, str]:
    return {
        "TOKEN": view.id,
        "FOR": f"{view.role.value} {view.experiment or ''}".strip(),
        "STATE": "revoked" if view.revoked else "valid",
        "EXPIRES": f"{view.expires_at:%Y-%m-%d %H:%M} UTC" if view.expires_at else "never",
        "LABEL": _plain(view.label),
        "VALUE": view.token or "",
    }


def _plain(text: str) -> str:
    return "".join(char if char.isprintable() else "?" for char in text)


def _private(directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    if not os.access(directory, os.W_OK):
        raise CopilotError(
            f"{directory} cannot be written",
            remedy="give another directory",
            code=ErrorCode.INVALID_REQUEST,
        )


def _write_secret(path: Path, secret: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(f"{secret}\n")
