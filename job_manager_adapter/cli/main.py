"""`copilot`: the command of experiments and operators."""

import argparse
import asyncio
import sys
from collections.abc import Sequence
from importlib.metadata import version

from copilot_agent.protocol.errors import CopilotError
from job_manager_adapter.cli import copilot1, credit, fleet, jobs
from job_manager_adapter.cli.output import complain, show_fields
from job_manager_adapter.client import Client
from job_manager_adapter.client.settings import DEFAULT_URL, load_settings

EXAMPLES = """examples:
  copilot job submit zmumu.toml --wait --fetch results
  copilot job list --state running
  copilot job explain j-…          why it is not running
  copilot pilot list               the fleet (with an operator's token)
  copilot --output json job show j-…

Where the manager is and who you are: --url/--token, then COPILOT_URL/COPILOT_TOKEN, then
~/.config/copilot/config.toml (url = "…", token = "…", mode 0600).
Exit codes: 0 fine, 1 a job failed, or something is wrong (see the message), 2 wrong flags,
130 interrupted.
"""


def build_parser() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--url", help=f"the manager's URL (default {DEFAULT_URL})")
    common.add_argument("--token", help="a user token (better: COPILOT_TOKEN)")
    common.add_argument(
        "--output",
        choices=["table", "json", "quiet"],
        default="table",
        help="for people, for programs, or ids only; may stand anywhere",
    )
    parser = argparse.ArgumentParser(
        prog="copilot",
        description="Submit physics jobs to volunteers' virtual machines, and watch the fleet.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        parents=[common],
    )
    parser.add_argument(
        "--version", action="version", version=f"copilot {version('cloud-copilot')}"
    )
    nouns = parser.add_subparsers(required=True, metavar="NOUN")
    jobs.add_parser(nouns)
    fleet.add_parser(nouns)
    credit.add_parser(nouns)
    copilot1.add_parser(nouns)
    who = nouns.add_parser("whoami", help="what the token allows")
    who.set_defaults(run=whoami)
    return parser


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Everything after `--` is the payload's; global flags may stand anywhere before it."""
    own, payload = list(argv), []
    if "--" in own:
        cut = own.index("--")
        own, payload = own[:cut], own[cut + 1 :]
    flags, rest = _global_flags(own)
    parser = build_parser()
    args, extra = parser.parse_known_args([*flags, *rest])
    if extra:
        hint = "; a job's command goes after --" if rest[:2] == ["job", "submit"] else ""
        parser.error(f"unrecognized arguments: {' '.join(extra)}{hint}")
    args.payload = payload
    return args


def _global_flags(argv: list[str]) -> tuple[list[str], list[str]]:
    """Move `--output`, `--url`, `--token` to the front, where the main parser reads them."""
    flags: list[str] = []
    rest: list[str] = []
    words = iter(argv)
    for word in words:
        name, equals, _ = word.partition("=")
        if name not in ("--output", "--url", "--token"):
            rest.append(word)
        elif equals:
            flags.append(word)
        else:
            flags += [word, *([value] if (value := next(words, None)) is not None else [])]
    return flags, rest


async def whoami(args: argparse.Namespace, client: Client) -> int:
    me = await client.whoami()
    fields: dict[str, object] = {
        "role": me.role.value,
        "experiments": ", ".join(me.experiments),
        "manager": me.manager_version,
        "manager's key": me.manager_key,
    }
    show_fields(me, fields, args.output, me.role.value)
    return 0


async def _run(args: argparse.Namespace) -> int:
    if "run_alone" in args:  # it speaks to others than the manager
        alone: int = await args.run_alone(args)
        return alone
    settings = load_settings(args.url, args.token)
    async with Client(settings.url, settings.token.get_secret_value()) as client:
        code: int = await args.run(args, client)
        return code


def main(argv: Sequence[str] | None = None) -> int:
    args = parse(sys.argv[1:] if argv is None else argv)
    try:
        return asyncio.run(_run(args))
    except CopilotError as error:
        complain(error)
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        sys.stderr.close()
        return 0
    except OSError as error:
        what = f"{error.filename}: {error.strerror}" if error.filename else str(error)
        complain(CopilotError(what))
        return 1


if __name__ == "__main__":
    sys.exit(main())
