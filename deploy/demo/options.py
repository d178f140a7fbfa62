"""The demo's command line."""

import argparse
import os
from dataclasses import dataclass
from pathlib import Path

EXAMPLES = """examples:
  make demo                                    8 jobs of 25 events, results in demo-out/
  make demo ARGS='--jobs 2 --events 5'         a small one
  make demo TRANSPORT=xmpp                     the pilot talks to the manager over an XMPP server
  make demo-boinc                              the launcher is started by the real BOINC client
"""


@dataclass(frozen=True)
class Options:
    jobs: int
    events: int
    cpus: int
    memory_mib: int
    out: Path
    cache: Path
    plain: bool
    transport: str
    """http, or xmpp: which carrier the pilot uses."""
    boinc: bool = False
    """BOINC's client starts the launcher."""


def parse() -> Options:
    root = Path(__file__).resolve().parents[2]
    parser = argparse.ArgumentParser(
        prog="python -m deploy.demo",
        description="Run physics jobs in a real virtual machine and draw what comes out.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    cache = Path(os.environ.get("COPILOT_CACHE", root / ".cache"))
    parser.add_argument("--jobs", type=int, default=8, choices=range(1, 101), metavar="1…100")
    parser.add_argument("--events", type=int, default=25, help="of each job")
    parser.add_argument("--cpus", type=int, default=2, help="virtual CPUs")
    parser.add_argument("--memory", type=int, default=1024, help="of the VM, in MiB")
    parser.add_argument("--out", type=Path, default=root / "demo-out")
    parser.add_argument("--cache", type=Path, default=cache)
    parser.add_argument("--plain", action="store_true", help="plain lines also on a terminal")
    parser.add_argument(
        "--transport",
        choices=("http", "xmpp"),
        default="http",
        help="xmpp: over a Prosody of the demo's own (default: %(default)s)",
    )
    parser.add_argument(
        "--boinc", action="store_true", help="as a task of the real BOINC client (make demo-boinc)"
    )
    args = parser.parse_args()
    return Options(
        jobs=args.jobs,
        events=args.events,
        cpus=args.cpus,
        memory_mib=args.memory,
        out=args.out.absolute(),
        cache=args.cache.absolute(),
        plain=args.plain,
        transport=args.transport,
        boinc=args.boinc,
    )
