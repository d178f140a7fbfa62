"""The demo's last line: a command that a visitor can copy."""

import shlex
import subprocess
from pathlib import Path

from deploy.demo.check import check_command
from tests.harness.receipts import ReceiptMaker


def test_the_command_checks_the_receipts(tmp_path: Path) -> None:
    manager = ReceiptMaker()
    (tmp_path / "receipts.jsonl").write_bytes(manager.file(2))
    (tmp_path / "manager.key").write_text(f"{manager.public}\n")
    command = shlex.split(check_command(tmp_path))
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "2.000000\n", "")
    (tmp_path / "manager.key").write_text(f"{ReceiptMaker().public}\n")
    assert subprocess.run(command, capture_output=True, check=False).returncode == 1
