"""`copilot copilot1 …`: asks the components of Co-Pilot 1 how they are doing."""

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from copilot_agent.protocol.errors import CopilotError
from job_manager_adapter.cli.output import Columns, Mode, printable, show_rows
from job_manager_adapter.client.copilot1_settings import load_copilot1_settings
from job_manager_adapter.client.heartbeat import Asking, Question, Row

EXAMPLES = """examples:
  copilot copilot1 ping --jid operator@copilot.example --password-file ~/.copilot1
  copilot copilot1 load                      everybody in the room
  copilot copilot1 disk --to alpha --to jm@copilot.example/beta
  copilot copilot1 processes --to alpha --json

Everything but --to and --seconds may stand in ~/.config/copilot/config.toml (mode 0600):

  [copilot1]
  jid = "operator@copilot.example"           an account of its own
  password_file = "~/.copilot1"              or password = "…"
  server = "xmpp.example:5222"               default: the account's domain
  room = "pilots-lounge@conference.copilot.example"
  ca = "/etc/copilot/ca.pem"                 default: the system's authorities

Exit codes: 0 somebody answered, 1 nobody did, or something is wrong, 2 wrong flags.
"""
_VERBS = {
    "ping": (Question.PING, "who is there"),
    "load": (Question.LOAD, "load averages"),
    "disk": (Question.DISK, "disks, in MiB"),
    "memory": (Question.MEMORY, "memory and swap, in MiB"),
    "processes": (Question.PROCESSES, "processes of the component's user"),
}
_ORDER = (
    *("1min", "5min", "15min"),
    *("path", "mountpoint", "totalBlocks", "memory", "used", "available", "used%"),
    *("%cpu", "%mem", "rss", "time", "command"),
)
"""Columns, as far as they come."""
_SETTINGS = ("jid", "password_file", "server", "room", "nick", "ca", "insecure")


def add_parser(nouns: Any) -> None:
    parser = nouns.add_parser(
        "copilot1", help="ask components of Co-Pilot 1 how they are doing (its Heartbeat)"
    )
    verbs = parser.add_subparsers(required=True, metavar="VERB")
    for name, (question, text) in _VERBS.items():
        verb = verbs.add_parser(
            name,
            help=text,
            description=f"Ask components of Co-Pilot 1 in their chat room: {text}.",
            epilog=EXAMPLES,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        verb.set_defaults(run_alone=partial(run, question))
        _add_flags(verb)


def _add_flags(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--jid", metavar="USER@DOMAIN", help="the account to ask from")
    verb.add_argument("--password-file", type=Path, metavar="FILE", help="its password, mode 0600")
    verb.add_argument("--server", metavar="HOST:PORT", help="default: the account's domain, 5222")
    verb.add_argument("--room", metavar="ROOM@SERVICE")
    verb.add_argument("--nick", help="what to be called there; default: made up")
    verb.add_argument("--ca", type=Path, metavar="FILE", help="certificates to trust, in PEM")
    verb.add_argument(
        "--insecure", action="store_true", default=None, help="check no certificate, do without TLS"
    )
    verb.add_argument("--seconds", type=_seconds, default=5.0, help="how long to wait, default 5")
    verb.add_argument(
        "--to",
        action="append",
        default=[],
        metavar="WHO",
        help="a nick in the room or a full address, more than once for several; default: all",
    )
    verb.add_argument("--json", action="store_true", help="the same as --output json")


def _seconds(text: str) -> float:
    if not 0 < (value := float(text)) <= 600:
        raise argparse.ArgumentTypeError("from 0 to 600")
    return value


async def run(question: Question, args: argparse.Namespace) -> int:
    """Needs no manager."""
    settings = load_copilot1_settings({name: getattr(args, name) for name in _SETTINGS})
    try:  # slixmpp takes its time, which no other command should spend
        from job_manager_adapter.client.heartbeat_round import ask
    except ImportError as error:
        raise CopilotError(
            f"this needs the Python package slixmpp: {error}",
            remedy="pip install 'cloud-copilot[client,agent]'",
        ) from error
    asking = Asking(question, settings.chat_room, args.to)
    await ask(settings, asking, args.seconds)
    for absent in asking.absent:
        print(f"not there: {printable(absent)}", file=sys.stderr)
    mode: Mode = "json" if args.json else args.output
    show_rows(asking.rows, _columns(question, asking.rows), mode, lambda row: row.who)
    return 0 if asking.rows else 1


def _columns(question: Question, rows: Sequence[Row]) -> Columns[Row]:
    columns: Columns[Row] = {"WHO": lambda row: row.who}
    if question is Question.PING:
        columns["SECONDS"] = lambda row: f"{row.seconds:.3f}"
    found = {key for row in rows for key in row.values}
    for key in (*(key for key in _ORDER if key in found), *sorted(found - set(_ORDER))):
        columns[printable(key).upper()] = partial(_value, key)
    return columns


def _value(key: str, row: Row) -> str:
    return row.values.get(key, "")
