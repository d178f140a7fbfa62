"""`copilot pilot|host|fleet drain`, `undrain`, and `copilot fleet show`."""

import argparse
from datetime import datetime
from typing import Any, Literal

from copilot_agent.protocol.errors import CopilotError
from job_manager_adapter.cli.ids import an_id
from job_manager_adapter.cli.output import ahead, counted, show_fields
from job_manager_adapter.cli.times import duration
from job_manager_adapter.client import Client
from job_manager_adapter.views import DrainView, FleetView, HostView, PilotView

Noun = Literal["pilot", "host", "fleet"]
_EXAMPLES = """examples:
  copilot {words} drain{id} --deadline 2h    what still runs then goes to others, uncharged
  copilot {words} undrain{id}
"""


def add_verbs(verbs: Any, noun: Noun) -> None:
    """`drain` and `undrain` of a noun."""
    what = {"pilot": "a pilot", "host": "a host's pilots, also later ones", "fleet": "all pilots"}
    text = f"let {what[noun]} finish what runs and take no more"
    parser = verbs.add_parser(
        "drain",
        help=text,
        description=f"{text[0].upper()}{text[1:]}. What has not begun is given back at once.",
        epilog=_EXAMPLES.format(words=noun, id="" if noun == "fleet" else f" {noun[0]}-…"),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--deadline", type=duration, metavar="TIME", help="such as 30m or 2h; default: none"
    )
    parser.add_argument("--undo", action="store_true", help="the same as `undrain`")
    undo = verbs.add_parser("undrain", help="let jobs come again", description="Undo a drain.")
    undo.set_defaults(undo=True, deadline=None)
    for one in (parser, undo):
        one.set_defaults(run=drain, noun=noun)
        if noun != "fleet":
            one.add_argument("id", type=an_id(noun), help=f"as `copilot {noun} list` shows it")


def add_fleet(nouns: Any) -> None:
    parser = nouns.add_parser("fleet", help="the fleet as a whole: its state, drains")
    verbs = parser.add_subparsers(required=True, metavar="VERB")
    shower = verbs.add_parser("show", help="pilots by state, and how far drains have come")
    shower.set_defaults(run=show_fleet)
    add_verbs(verbs, "fleet")


async def drain(args: argparse.Namespace, client: Client) -> int:
    if args.undo and args.deadline is not None:
        raise CopilotError("an undo has no deadline", remedy="leave --deadline out")
    options = {"deadline_seconds": args.deadline, "undo": args.undo}
    match args.noun:
        case "pilot":
            pilot = await client.pilots.drain(args.id, **options)
            _say(args, pilot, pilot.id, _pilot(pilot))
        case "host":
            host = await client.hosts.drain(args.id, **options)
            _say(args, host, host.id, _host(host, undone=args.undo))
        case _:
            fleet = await client.fleet.drain(**options)
            _say(args, fleet, "fleet", _fleet(fleet, undone=args.undo))
    return 0


def _pilot(pilot: PilotView) -> str:
    match pilot.drained_by:
        case "":
            return f"{pilot.id} takes jobs again"
        case "pilot":
            limit = _limit(pilot.drain_deadline)
            return f"{pilot.id} drains; it holds {counted(len(pilot.jobs), 'job')}{limit}"
        case other:
            return f"{pilot.id} drains on: its {other} was asked to → copilot fleet show"


def _host(host: HostView, *, undone: bool) -> str:
    if not host.draining:
        return f"{host.id} takes jobs again"
    if undone:
        return f"{host.id} drains on: the fleet was asked to → copilot fleet undrain"
    return f"{host.id} drains{_limit(host.drain_deadline)} → copilot fleet show"


def _fleet(fleet: FleetView, *, undone: bool) -> str:
    if undone:
        others = counted(len(fleet.drains), "other drain")
        return "the fleet takes jobs again" + (f"; {others} go on" if fleet.drains else "")
    (drain,) = [one for one in fleet.drains if one.of == "fleet"]
    return f"the fleet drains{_limit(drain.deadline)}: {_progress(drain)} → copilot fleet show"


def _limit(deadline: datetime | None) -> str:
    return f", {ahead(deadline)} at most" if deadline else ""


def _progress(drain: DrainView) -> str:
    pilots, jobs = counted(drain.pilots_holding, "pilot"), counted(drain.jobs_held, "job")
    return f"{pilots} still hold {jobs}" if drain.jobs_held else "nothing is held any more"


def _say(
    args: argparse.Namespace, view: PilotView | HostView | FleetView, key: str, sentence: str
) -> None:
    if args.output == "json":
        print(view.model_dump_json(indent=2))
    else:
        print(key if args.output == "quiet" else sentence)


async def show_fleet(args: argparse.Namespace, client: Client) -> int:
    fleet = await client.fleet.show()
    fields: dict[str, object] = {
        f"pilots {state.value}": str(count) for state, count in fleet.pilots.items()
    }
    fields["jobs held"] = str(fleet.jobs_held)
    for drain in fleet.drains:
        deadline = f"deadline in {ahead(drain.deadline)}" if drain.deadline else "no deadline"
        parts = (_progress(drain), deadline)
        fields[f"drain of {drain.id or 'the fleet'}"] = ", ".join(parts)
    show_fields(fleet, fields, args.output, "fleet")
    return 0
