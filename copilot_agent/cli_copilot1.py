"""The command `copilot-agent copilot1`."""

import argparse
import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from copilot_agent.assembly import Ground
    from copilot_agent.copilot1 import Engagement
    from copilot_agent.settings import Settings

EXAMPLES = """\
examples:
  copilot-agent copilot1 --jid agent-7@copilot.example.org --password-file password \\
      --server copilot.example.org:5222 --managers jm@copilot.example.org --state ~/pilot
  copilot-agent copilot1 --jid agent-7@copilot.example.org --password-file password \\
      --server 10.0.0.5:5222 --ca old-authority.pem --managers jm@copilot.example.org \\
      --packages-command /usr/bin/alienv --network --payload-user 200000 --state /var/lib/pilot

Each agent needs an account of its own: what is said to one that is gone goes to whoever shares its
account. See docs/copilot1.md.
"""
_JID = re.compile(r"[^@/\s]{1,256}@[^@/\s]{1,256}")
_SERVER = re.compile(r"(\[[0-9A-Fa-f:]+\]|[^:\s]+):([0-9]{1,5})")
_ROOM = re.compile(r"[^@/\s]+@[^@/\s]+/[^@/]{1,256}")


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> argparse.ArgumentParser:
    command = commands.add_parser(
        "copilot1",
        help="run a pilot for the managers of an original Co-Pilot",
        description="Asks original Co-Pilot managers for jobs, over XMPP and Chirp.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_account(command)
    command.add_argument(
        "--packages-command",
        default="",
        metavar="PROGRAM",
        help="prints a package's settings, as `alienv print NAME/VERSION`, and is run by the job; "
        "without it jobs with packages are refused",
    )
    command.add_argument(
        "--run-seconds",
        type=_seconds,
        default=86_400,
        metavar="N",
        help="a job is stopped after this run time; default: a day",
    )
    command.add_argument(
        "--network", action="store_true", help="let jobs use the network of this computer"
    )
    command.add_argument("--log-format", choices=("text", "json"), default="text")
    command.add_argument("--hurry", type=float, default=1.0, help=argparse.SUPPRESS)  # for tests
    return command


def _add_account(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--jid", type=_jid, required=True, help="this agent's account, NAME@DOMAIN"
    )
    command.add_argument(
        "--password-file", type=Path, required=True, metavar="FILE", help="of the account"
    )
    command.add_argument(
        "--server", type=_server, required=True, metavar="HOST:PORT", help="of XMPP"
    )
    command.add_argument(
        "--managers",
        type=_jid,
        required=True,
        metavar="JID",
        help="the bare address that all managers share",
    )
    command.add_argument("--resource", type=_resource, metavar="NAME", help="default: a random one")
    command.add_argument("--ca", type=Path, metavar="FILE", help="more CA certificates (PEM)")
    command.add_argument(
        "--insecure",
        action="store_true",
        help="the server may be anybody, and have no TLS: on trusted wires only",
    )
    command.add_argument(
        "--room",
        type=_room,
        metavar="ROOM@SERVICE/NICK",
        help="a chat room to be in, for Heartbeat",
    )


def run(arguments: argparse.Namespace, settings: "Settings", ground: "Ground") -> int:
    """The exit code. Raises ValueError and OSError."""
    import asyncio

    from copilot_agent.copilot1 import run as run_agent

    if arguments.insecure:
        _warn("--insecure: whoever answers at the server's address can give us jobs")
    return asyncio.run(run_agent(settings, _engagement(arguments), ground))


def _engagement(arguments: argparse.Namespace) -> "Engagement":
    from copilot_agent.copilot1 import Engagement
    from copilot_agent.core.copilot1.words import Timers

    return Engagement(
        jid=arguments.jid,
        password=_password(arguments.password_file),
        server=arguments.server,
        managers=arguments.managers,
        resource=arguments.resource or "",
        insecure=arguments.insecure,
        room=arguments.room or "",
        run_seconds=arguments.run_seconds,
        network=arguments.network,
        packages_command=arguments.packages_command,
        timers=Timers().faster(arguments.hurry),
    )


def _password(path: Path) -> str:
    try:
        password = path.read_text().strip()
    except OSError as error:
        raise ValueError(f"--password-file: cannot be read: {error}") from error
    if not password:
        raise ValueError(f"--password-file: {path} is empty")
    if path.stat().st_mode & 0o077:
        _warn(f"{path} may be read by others: chmod 600 is better")
    return password


def _warn(text: str) -> None:
    import logging

    logging.getLogger("copilot_agent").warning("%s", text)


def _jid(text: str) -> str:
    if not _JID.fullmatch(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no account such as agent-7@example.org")
    return text.lower()


def _server(text: str) -> tuple[str, int]:
    found = _SERVER.fullmatch(text)
    if not found or not 0 < int(found[2]) < 65_536:
        raise argparse.ArgumentTypeError(f"{text!r} is no HOST:PORT such as example.org:5222")
    return found[1].strip("[]"), int(found[2])


def _room(text: str) -> str:
    if not _ROOM.fullmatch(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no room@conference.example.org/nick")
    return text


def _resource(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9._-]{1,100}", text):
        raise argparse.ArgumentTypeError("must be letters, digits and ._-, at most 100")
    return text


def _seconds(text: str) -> int:
    value = int(text)
    if not 1 <= value <= 30 * 86_400:
        raise argparse.ArgumentTypeError("must be between 1 and 2592000")
    return value
