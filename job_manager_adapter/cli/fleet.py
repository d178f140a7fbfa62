"""`copilot pilot …` and `copilot host …`; drains are in drains.py"""

import argparse
from typing import Any

from copilot_agent.protocol.errors import CopilotError
from job_manager_adapter.cli import drains
from job_manager_adapter.cli.ids import an_id
from job_manager_adapter.cli.output import Columns, age, ahead, show_fields, show_rows
from job_manager_adapter.client import Client
from job_manager_adapter.views import HostView, PilotState, PilotView

PILOTS: Columns[PilotView] = {
    "PILOT": lambda pilot: pilot.id,
    "STATE": lambda pilot: pilot.state.value,
    "CORES": lambda pilot: pilot.capabilities.cores,
    "MIB": lambda pilot: pilot.capabilities.memory_mib,
    "JOBS": lambda pilot: len(pilot.jobs),
    "ENDED": lambda pilot: _ended(pilot),
    "SEEN": lambda pilot: pilot.seen_at,
}
HOSTS: Columns[HostView] = {
    "HOST": lambda host: host.id,
    "LABEL": lambda host: host.label,
    "DRAINS": lambda host: "yes" if host.draining else "",
    "BANNED": lambda host: f"yes: {host.ban_reason}" if host.banned else "",
    "PILOTS": lambda host: host.pilots_alive,
    "BOOTS": lambda host: host.boots,
    "SUCCEEDED": lambda host: host.jobs_succeeded,
    "CREDIT": lambda host: f"{host.credit_granted:.2f}",
    "SEEN": lambda host: host.seen_at,
}


def _ended(pilot: PilotView) -> str:
    failed = f" ({pilot.jobs_failed} failed)" if pilot.jobs_failed else ""
    return f"{pilot.jobs_succeeded + pilot.jobs_failed}{failed}"


def add_parser(nouns: Any) -> None:
    _add_pilot(nouns.add_parser("pilot", help="watch, drain and retire pilots"))
    _add_host(nouns.add_parser("host", help="list, drain and ban hosts"))
    drains.add_fleet(nouns)


def _add_pilot(parser: argparse.ArgumentParser) -> None:
    verbs = parser.add_subparsers(required=True, metavar="VERB")
    lister = verbs.add_parser("list", help="the fleet")
    lister.set_defaults(run=list_pilots)
    lister.add_argument("--state", choices=[state.value for state in PilotState])
    lister.add_argument("--host", type=an_id("host"), metavar="ID", help="only this host's")
    lister.add_argument("--limit", type=int, default=100, metavar="N", help="default 100")
    drains.add_verbs(verbs, "pilot")
    for name, run, text in (
        ("show", show_pilot, "everything about one pilot"),
        ("retire", retire_pilot, "stop it now; its jobs go to others"),
    ):
        verb = verbs.add_parser(name, help=text, description=text)
        verb.set_defaults(run=run)
        verb.add_argument(
            "pilot", type=an_id("pilot"), help="a pilot's id, as `copilot pilot list` shows it"
        )


def _add_host(parser: argparse.ArgumentParser) -> None:
    verbs = parser.add_subparsers(required=True, metavar="VERB")
    lister = verbs.add_parser("list", help="all hosts")
    lister.set_defaults(run=list_hosts)
    lister.add_argument("--limit", type=int, default=100)
    drains.add_verbs(verbs, "host")
    ban = verbs.add_parser("ban", help="give a host no more jobs")
    ban.set_defaults(run=ban_host)
    ban.add_argument(
        "host", type=an_id("host"), help="a host's id, as `copilot host list` shows it"
    )
    ban.add_argument("--reason", default="")
    ban.add_argument("--undo", action="store_true", help="give it jobs again")


async def list_pilots(args: argparse.Namespace, client: Client) -> int:
    page = await client.pilots.list(state=args.state, host=args.host, limit=args.limit)
    show_rows(page.items, PILOTS, args.output, lambda pilot: pilot.id)
    return 0


async def show_pilot(args: argparse.Namespace, client: Client) -> int:
    pilot = await client.pilots.show(args.pilot)
    offer = pilot.capabilities
    fields: dict[str, object] = {
        "pilot": pilot.id,
        "host": pilot.host,
        "state": pilot.state.value,
        "drained by": _drained_by(pilot),
        "carrier": pilot.carrier,
        "offers": f"{offer.cores} cores, {offer.memory_mib} MiB memory, {offer.disk_mib} MiB disk",
        "processor": offer.cpu_model,
        "accelerator": offer.accelerator,
        "agent": offer.agent_version,
        "image": offer.image,
        "confinement": ", ".join(offer.confinement),
        "jobs": ", ".join(pilot.jobs),
        "succeeded": pilot.jobs_succeeded,
        "failed": pilot.jobs_failed,
        "enrolled": age(pilot.enrolled_at),
        "seen": age(pilot.seen_at) if pilot.seen_at else None,
    }
    show_fields(pilot, fields, args.output, pilot.id)
    return 0


def _drained_by(pilot: PilotView) -> str:
    who = {"pilot": "an operator", "host": "its host's drain", "fleet": "the fleet's drain"}
    deadline = f", {ahead(pilot.drain_deadline)} at most" if pilot.drain_deadline else ""
    return f"{who[pilot.drained_by]}{deadline}" if pilot.drained_by else ""


async def retire_pilot(args: argparse.Namespace, client: Client) -> int:
    await client.pilots.retire(args.pilot)
    _said(args, args.pilot, "is retired")
    return 0


async def list_hosts(args: argparse.Namespace, client: Client) -> int:
    page = await client.hosts.list(limit=args.limit)
    show_rows(page.items, HOSTS, args.output, lambda host: host.id)
    return 0


async def ban_host(args: argparse.Namespace, client: Client) -> int:
    if not args.undo and not args.reason:
        raise CopilotError("a ban needs a reason", remedy="give --reason TEXT")
    await client.hosts.ban(args.host, reason=args.reason, undo=args.undo)
    _said(args, args.host, "is welcome again" if args.undo else "is banned")
    return 0


def _said(args: argparse.Namespace, key: str, word: str) -> None:
    if args.output == "json":
        print(f'{{"changed": ["{key}"]}}')
    else:
        print(key if args.output == "quiet" else f"{key} {word}")
