"""The command `copilot-agent`.

Most imports wait until the starter of payloads is there: what it brings along, each payload's start
copies.
"""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from copilot_agent.version import VERSION

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from copilot_agent.assembly import Ground
    from copilot_agent.payload.starter import Starter
    from copilot_agent.settings import Settings

EXAMPLES = """\
examples:
  copilot-agent run --manager https://manager.example.org --enrolment-file secret --state ~/pilot
  copilot-agent run --manager http://127.0.0.1:8470 --enrolment-file secret --state pilot \\
      --cores 2 --memory 2048 --disk 4096 --payload-user 200000
  copilot-agent run --manager https://manager.example.org --enrolment-file secret --state pilot \\
      --carriers xmpp,websocket,poll
  copilot-agent probe --state ~/pilot

exit codes: 0 asked to stop, 1 trouble (see the log), 2 wrong use, 3 refused by the manager
"""
USAGE_ERROR = 2


def parser() -> "argparse.ArgumentParser":
    import argparse

    from copilot_agent import cli_copilot1

    top = argparse.ArgumentParser(
        prog="copilot-agent",
        description="Runs jobs of a Co-Pilot manager on this computer or in this guest.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=f"copilot-agent {VERSION}")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    run = commands.add_parser("run", help="run a pilot on this computer, without a VM")
    run.add_argument("--manager", required=True, metavar="URL", help="the manager's base URL")
    run.add_argument(
        "--enrolment-file",
        type=Path,
        metavar="FILE",
        help="file with the enrolment secret; otherwise the variable COPILOT_ENROLMENT",
    )
    run.add_argument("--window", type=_count, default=1, help="jobs held beyond those that run")
    run.add_argument(
        "--carriers",
        default="websocket,poll",
        metavar="LIST",
        help="ways to the manager, best first, of xmpp, websocket and poll (default: %(default)s)",
    )
    run.add_argument(
        "--xmpp", metavar="HOST:PORT", help="instead of the XMPP server that the manager names"
    )
    run.add_argument("--ca", type=Path, metavar="FILE", help="more CA certificates (PEM)")
    run.add_argument("--log-format", choices=("text", "json"), default="text")
    probe = commands.add_parser("probe", help="print what this computer can offer, as JSON")
    for each in (run, cli_copilot1.add(commands), probe):
        _common(each)
    commands.add_parser("guest", help="run inside a virtual machine (started by its init)")
    return top


def _common(command: "argparse.ArgumentParser") -> None:
    command.add_argument(
        "--state", type=Path, required=True, metavar="DIR", help="keys, reports, scratch space"
    )
    command.add_argument("--cores", type=_positive, metavar="N", help="default: all there are")
    command.add_argument("--memory", type=_positive, metavar="MIB", help="for jobs; default: most")
    command.add_argument(
        "--disk", type=_positive, metavar="MIB", help="for jobs; default: what is free"
    )
    command.add_argument(
        "--payload-user",
        metavar="NAME|UID",
        help="run payloads as this user (needs root) and the 63 uids after it, for parallel ones",
    )


def _count(text: str) -> int:
    from argparse import ArgumentTypeError

    value = int(text)
    if not 0 <= value <= 1 << 24:
        raise ArgumentTypeError("must be between 0 and 16777216")
    return value


def _positive(text: str) -> int:
    from argparse import ArgumentTypeError

    value = _count(text)
    if value == 0:
        raise ArgumentTypeError("must be at least 1")
    return value


def main(argv: list[str] | None = None) -> int:
    words = sys.argv[1:] if argv is None else argv
    if words[:1] not in (["run"], ["copilot1"], ["probe"]):
        parser().parse_args(words)
        from copilot_agent.boot import main as boot_main

        return boot_main()
    try:
        from copilot_agent.payload.starter import Starter

        with Starter() as starter:
            arguments = parser().parse_args(words)
            settings = _settings(arguments)
            if arguments.command == "probe":
                return _probe(settings, starter)
            if arguments.command == "copilot1":
                return _run_copilot1(arguments, settings, starter)
            return _run(arguments, settings, starter)
    except (OSError, ValueError) as error:
        print(f"copilot-agent: {error}", file=sys.stderr)
        return USAGE_ERROR
    except KeyboardInterrupt:
        return 130


def _settings(arguments: "argparse.Namespace") -> "Settings":
    from copilot_agent.probe import Given
    from copilot_agent.protocol.base import split_host_port
    from copilot_agent.settings import Settings, carriers, manager_url, payload_user

    state: Path = arguments.state.expanduser().absolute()
    user = payload_user(arguments.payload_user) if arguments.payload_user else None
    if user is not None and os.geteuid() != 0:
        raise ValueError("--payload-user needs root: leave it out, or start the agent as root")
    ca, xmpp = getattr(arguments, "ca", None), getattr(arguments, "xmpp", None)
    return Settings(
        manager=manager_url(arguments.manager) if arguments.command == "run" else "",
        state=state,
        scratch=state / "scratch",
        given=Given(arguments.cores, arguments.memory, arguments.disk),
        window=getattr(arguments, "window", 0),
        payload_user=user,
        ca_certificates=ca.read_text() if ca else "",
        carriers=carriers(getattr(arguments, "carriers", "websocket,poll")),
        xmpp_server=split_host_port(xmpp) if xmpp else None,
    )


def _probe(settings: "Settings", starter: "Starter") -> int:
    from copilot_agent.assembly import prepare

    print(prepare(settings, starter).capabilities.model_dump_json(indent=2))
    return 0


def _run(arguments: "argparse.Namespace", settings: "Settings", starter: "Starter") -> int:
    import asyncio

    from copilot_agent import logs
    from copilot_agent.identity import read_secret
    from copilot_agent.standalone import run

    logs.set_up(arguments.log_format)
    secret = read_secret(arguments.enrolment_file)
    ground = _ground(arguments, settings, starter)
    return _alone(lambda: asyncio.run(run(settings, secret, ground)))


def _run_copilot1(arguments: "argparse.Namespace", settings: "Settings", starter: "Starter") -> int:
    from copilot_agent import cli_copilot1, logs

    logs.set_up(arguments.log_format)
    ground = _ground(arguments, settings, starter)
    return _alone(lambda: cli_copilot1.run(arguments, settings, ground))


def _ground(arguments: "argparse.Namespace", settings: "Settings", starter: "Starter") -> "Ground":
    import logging

    from copilot_agent.assembly import prepare

    log = logging.getLogger("copilot_agent")
    ground = prepare(settings, starter)
    offer = ground.capabilities
    if arguments.disk and offer.disk_mib < arguments.disk:
        raise ValueError(
            f"{settings.scratch} has room for {offer.disk_mib} MiB of jobs, "
            f"not for {arguments.disk}: lower --disk, or choose another --state"
        )
    log.info(
        "%d cores, %d MiB, disk %d MiB for jobs", offer.cores, offer.memory_mib, offer.disk_mib
    )
    if "uid" not in offer.confinement:
        log.warning(
            "payloads run as the agent's own user and can read its files: "
            "start it as root with --payload-user, or run it in a virtual machine"
        )
    return ground


def _alone(run: "Callable[[], int]") -> int:
    from copilot_agent.standalone import InUseError

    try:
        return run()
    except InUseError as error:
        print(f"copilot-agent: {error}", file=sys.stderr)
        return USAGE_ERROR
