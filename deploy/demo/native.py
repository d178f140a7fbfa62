"""The same payload, run directly on this computer, to compare bit by bit."""

import asyncio
import zipfile
from pathlib import Path

from copilot_agent.payload.launch import PINNED_CPU
from deploy.demo.physics import Masses, read

PAYLOAD = Path(__file__).with_name("zmumu.py")


async def run(wheel: Path, seed: int, events: int, scratch: Path) -> Masses:
    """Unpack the wheel of this computer's Python and run the payload with pinned CPU features.

    Raises RuntimeError with what the payload said.
    """
    tree = scratch / "pythia"
    await asyncio.to_thread(_unpack, wheel, tree)
    target = scratch / f"native-{seed}.json"
    process = await asyncio.create_subprocess_exec(
        "/usr/bin/python3",
        str(PAYLOAD),
        *("--seed", str(seed), "--events", str(events)),
        *("--pythia", str(tree), "--output", str(target)),
        cwd=scratch,
        env={"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "GLIBC_TUNABLES": PINNED_CPU},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await process.communicate()
    if process.returncode:
        raise RuntimeError(f"the native run failed: {said.decode(errors='replace')[-2000:]}")
    return read(target)


def _unpack(wheel: Path, tree: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tree)
