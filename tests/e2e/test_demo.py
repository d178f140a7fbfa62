"""The demo's whole path, small: what a visitor sees, and that nothing is left behind."""

import asyncio
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from copilot_agent.protocol.receipt import Receipt
from deploy.demo.summary import Summary
from tests.harness import programs

pytestmark = pytest.mark.vm


@pytest.fixture
def temporary() -> Iterator[Path]:
    """The demo's own place for temporary files; short enough for sockets."""
    with tempfile.TemporaryDirectory(prefix="e2e-") as name:
        Path(name).chmod(0o711)  # Prosody runs as a user of its own
        yield Path(name)


async def run_demo(
    repository: Path, cache: Path, out: Path, temporary: Path, *options: str
) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "deploy.demo", "--plain"),
        *("--out", str(out), "--cache", str(cache), *options),
        cwd=repository,
        env={**os.environ, "TMPDIR": str(temporary)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    return process.returncode or 0, output.decode()


@pytest.mark.parametrize(("transport", "carrier"), [("http", "websocket"), ("xmpp", "xmpp")])
async def test_two_jobs_through_a_real_vm(
    repository: Path, cache: Path, tmp_path: Path, temporary: Path, transport: str, carrier: str
) -> None:
    out = tmp_path / "out"
    options = ("--jobs", "2", "--events", "4", "--transport", transport)
    code, said = await run_demo(repository, cache, out, temporary, *options)
    assert code == 0, said
    summary = Summary.model_validate_json((out / "summary.json").read_bytes())
    assert summary.carrier == carrier
    assert (summary.jobs, summary.succeeded, summary.attempts, summary.events) == (2, 2, 2, 8)
    assert 91.19 - 4 < summary.mean_mass_gev < 91.19 + 4, "these two seeds are on the Z peak"
    assert summary.native_identical
    assert summary.native_largest_bin_difference == 0
    lines = (out / "receipts.jsonl").read_text().splitlines()
    receipts = [Receipt.model_validate_json(line) for line in lines]
    assert sum(receipt.statement.granted for receipt in receipts) == summary.credit_granted
    assert (out / "mass.png").read_bytes().startswith(b"\x89PNG")
    assert "2 of 2 jobs succeeded" in said
    assert programs.naming(temporary) == []
    assert list(temporary.iterdir()) == []


async def test_a_missing_image_is_said_at_once(
    repository: Path, tmp_path: Path, temporary: Path
) -> None:
    (tmp_path / "wheels").mkdir()
    for tag in ("cp311", "cp313"):
        (tmp_path / "wheels" / f"pythia8mc-0-{tag}-{tag}-any.whl").write_bytes(b"")
    code, said = await run_demo(repository, tmp_path, tmp_path / "out", temporary)
    assert code == 1
    assert "the launcher ended" in said
    assert not (tmp_path / "out" / "summary.json").exists()
