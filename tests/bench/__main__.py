"""The command behind `make bench`."""

import argparse
import asyncio
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tests.bench import results, run, summary
from tests.bench.frame import Bench, benches

EPILOG = """\
examples:
  python -m tests.bench                    all of them, about 20 minutes, and docs/measurements.md
  python -m tests.bench --only cycles      one; its figures replace the older ones in results.json
  python -m tests.bench --only idle,wake   two
  python -m tests.bench --quick            tiny sizes: shows that everything works, measures nothing
  python -m tests.bench --list
  python -m tests.bench --document         measure nothing, write down what results.json holds

exit codes: 0 they ran, whether or not targets were met; 1 a bench failed; 64 wrong usage;
130 stopped by Ctrl-C, what had been measured is kept"""

ELSEWHERE = """\
commands of their own, which need the VM image (`make image`) and print JSON:
  python -m tests.bench.figures            sizes, memory and times of image, VM, manager, agent
  python -m tests.bench.start_latency 50   submit to payload start on loopback, without a VM"""


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench",
        description="Measures the manager and the agent beside their peers.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--only", metavar="NAME[,NAME]", help="these benches, see --list")
    parser.add_argument("--list", action="store_true", help="say which benches there are")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, no peers")
    parser.add_argument(
        "--document", action="store_true", help="write table and plots of the last results"
    )
    parser.add_argument("--out", type=Path, help="where results go (default: bench-out)")
    return parser.parse_args(arguments)


def chosen(only: str | None) -> tuple[Bench, ...]:
    """Raises LookupError for a name that no bench has."""
    every = benches()
    if not only:
        return every
    names = only.split(",")
    known = {bench.name: bench for bench in every}
    for name in names:
        if name not in known:
            raise LookupError(f"no bench called {name!r}; there are {', '.join(known)}")
    return tuple(known[name] for name in names)


def show_list() -> None:
    for bench in benches():
        print(f"{bench.name:12} {bench.description}")
    print(f"\n{ELSEWHERE}")


async def bench_all(todo: Sequence[Bench], out: Path, quick: bool, whole: bool) -> int:
    if whole:
        (out / results.FILE).unlink(missing_ok=True)
    loop, me = asyncio.get_running_loop(), asyncio.current_task()
    assert me is not None
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, me.cancel)
    began, failed = time.monotonic(), []
    for position, bench in enumerate(todo, 1):
        print(f"[{position}/{len(todo)}] {bench.name}: {bench.description}", flush=True)
        if not await run.one(bench, out, quick):
            failed.append(bench.name)
    found = results.read(out / results.FILE)
    names = [bench.name for bench in todo]
    mine = [each for each in found if any(results.belongs(each.name, name) for name in names)]
    print(f"\n{summary.table(mine)}\n\n{out / results.FILE}, {time.monotonic() - began:.0f} s")
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
        return 1
    if whole and not quick:
        summary.write_documents(found)
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    given = parse(sys.argv[1:] if arguments is None else arguments)
    if given.list:
        show_list()
        return 0
    try:
        todo = chosen(given.only)
    except LookupError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 64
    if given.document:
        summary.write_documents(results.read((given.out or Path("bench-out")) / results.FILE))
        return 0
    out = (given.out or Path("bench-out", *(["quick"] if given.quick else []))).absolute()
    run.adopt_orphans()
    try:
        return asyncio.run(bench_all(todo, out, given.quick, not given.only))
    except asyncio.CancelledError:
        print(f"stopped; what was measured stands in {out / results.FILE}", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
