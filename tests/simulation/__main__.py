"""`make simulate`: schedules from the command line."""

import argparse
import json
import random
import sys

from tests.simulation import isolation
from tests.simulation.runner import Summary, run
from tests.simulation.schedule import Carrier, plan
from tests.simulation.world import simulate

_EXAMPLES = """examples:
  make simulate SEEDS=20000            as many schedules, from a base that is drawn and printed
  make simulate SEEDS=5000 BASE=70000  five thousand from seed 70000 on
  make simulate SEEDS=seed:4711        one schedule, with its trace
  make simulate ARGS='--carrier xmpp'  all over XMPP (or http), whatever the seeds say
"""


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.simulation",
        description="Runs schedules of the deterministic simulation (docs/reliability.md).",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("seeds", nargs="?", default="2000", help="how many, or seed:N for one")
    parser.add_argument("--base", type=int, help="the first seed; drawn if it is not given")
    parser.add_argument(
        "--carrier",
        choices=tuple(Carrier),
        type=Carrier,
        help="of all conversations; else the seed says it, and a quarter goes over XMPP",
    )
    parser.add_argument("--processes", type=int, default=2, help="at the same time (default 2)")
    parser.add_argument("--until", help="stop when this invariant is violated, see checker.py")
    parser.add_argument("--json", action="store_true", help="print the failures as JSON, no table")
    return parser.parse_args()


def _one(seed: int, carrier: Carrier | None) -> int:
    isolation.patch()
    result = simulate(seed, carrier)
    sys.stdout.write(result.trace)
    for violation in result.violations:
        print(f"seed {seed}: {violation}", file=sys.stderr)
    return 1 if result.violations else 0


def _progress(summary: Summary) -> None:
    text = f"{summary.count} schedules, {summary.rate:.1f}/s, {len(summary.failures)} failed"
    if sys.stderr.isatty():
        print(f"\r{text}", end="", file=sys.stderr, flush=True)
    elif summary.count % 500 == 0:
        print(text, file=sys.stderr, flush=True)


def told(summary: Summary) -> str:
    """What failed, and how to see it again."""
    lines = []
    for seed, violations in sorted(summary.failures.items()):
        over = plan(seed, summary.wanted).carrier
        lines += [f"seed {seed} over {over}: {violation}" for violation in violations]
        wanted = f" ARGS='--carrier {over}'" if summary.wanted else ""
        lines.append(f"  replay: make simulate SEEDS=seed:{seed}{wanted}")
    lines += [f"no schedule had {fault} at {step}" for fault, step in summary.missed]
    return "\n".join(lines)


def _many(arguments: argparse.Namespace) -> int:
    base = arguments.base
    if base is None:
        base = random.SystemRandom().randrange(1, 10**9)
    print(f"base seed {base}", file=sys.stderr)
    summary = run(
        range(base, base + int(arguments.seeds)),
        carrier=arguments.carrier,
        processes=arguments.processes,
        until=arguments.until,
        progress=_progress,
    )
    print(file=sys.stderr)
    if arguments.json:
        found = {seed: [v.invariant for v in each] for seed, each in summary.failures.items()}
        print(json.dumps({"count": summary.count, "failures": found}))
    else:
        print(summary.table())
        print(summary.told())
        print(told(summary))
    return 1 if summary.failures or summary.missed else 0


def main() -> int:
    arguments = _arguments()
    kind, _, number = arguments.seeds.rpartition(":")
    if kind not in ("", "seed") or not number.isdigit():
        print(f"SEEDS is a number or seed:N, not {arguments.seeds}", file=sys.stderr)
        return 64
    try:
        return _one(int(number), arguments.carrier) if kind else _many(arguments)
    except KeyboardInterrupt:
        print("\nstopped", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
