"""`make demo`'s program as a process."""

import asyncio
import os
import sys
from asyncio.subprocess import PIPE, STDOUT, Process
from dataclasses import dataclass
from pathlib import Path

from copilot_agent.protocol.receipt import Receipt
from deploy.demo.summary import Summary


@dataclass(frozen=True)
class DemoProgram:
    """`temporary` is where it keeps what it removes at its end."""

    repository: Path
    cache: Path
    out: Path
    temporary: Path

    async def start(self, *options: str) -> Process:
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "deploy.demo", "--plain"),
            *("--out", str(self.out), "--cache", str(self.cache), *options),
            cwd=self.repository,
            env={**os.environ, "TMPDIR": str(self.temporary), "PYTHONUNBUFFERED": "1"},
            stdout=PIPE,
            stderr=STDOUT,
        )

    async def run(self, *options: str) -> tuple[int, str]:
        """Its exit code, and what it said."""
        process = await self.start(*options)
        output, _ = await process.communicate()
        return process.returncode or 0, output.decode()

    def receipts(self) -> list[Receipt]:
        lines = (self.out / "receipts.jsonl").read_text().splitlines()
        return [Receipt.model_validate_json(line) for line in lines]


def as_it_should_be(summary: Summary, demo: DemoProgram) -> None:
    """Of two jobs of four events."""
    assert (summary.jobs, summary.succeeded, summary.attempts, summary.events) == (2, 2, 2, 8)
    assert 91.19 - 4 < summary.mean_mass_gev < 91.19 + 4, "these two seeds are on the Z peak"
    assert summary.native_identical
    assert summary.native_largest_bin_difference == 0
    granted = sum(receipt.statement.granted for receipt in demo.receipts())
    assert granted == summary.credit_granted
    assert (demo.out / "manager.key").read_text() == f"{demo.receipts()[0].statement.key}\n"
    assert (demo.out / "mass.png").read_bytes().startswith(b"\x89PNG")
