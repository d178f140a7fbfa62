"""Runs one bench in this process; the command in `__main__` starts it once per bench."""

import argparse
import asyncio
import sys
import tempfile
import time
from pathlib import Path

from tests.bench.frame import Bench, Frame, find
from tests.bench.results import Result, belongs, write


async def measure(bench: Bench, frame: Frame) -> list[Result]:
    """Its results. Raises TimeoutError after the bench's own limit."""
    async with asyncio.timeout(bench.seconds):
        results = await bench.run(frame)
    strange = [each.name for each in results if not belongs(each.name, bench.name)]
    if strange:
        raise ValueError(f"results of {bench.name} must be called {bench.name}.…: {strange}")
    return results


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--into", type=Path, required=True)
    parser.add_argument("--run", default=f"{time.time():.0f}")
    parser.add_argument("--quick", action="store_true")
    given = parser.parse_args()
    bench = find(given.name)
    with tempfile.TemporaryDirectory(prefix=f"copilot-bench-{bench.name}-") as folder:
        root = Path(folder)
        root.chmod(0o711)
        frame = Frame(root, given.out, given.run, given.quick, lambda line: print(line, flush=True))
        write(given.into, asyncio.run(measure(bench, frame)))
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
