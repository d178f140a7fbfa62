"""`receipt-check` as script_validator runs it: exit status, stderr, the ledger."""

import shutil
import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from job_manager_adapter.boinc_project.checking import Counted, RefusedError
from job_manager_adapter.boinc_project.cli.receipt_check import main
from job_manager_adapter.boinc_project.ledger import Ledger
from job_manager_adapter.boinc_project.names import workunit_name
from tests.harness.receipts import ENROLMENT, ReceiptMaker

MANAGER = ReceiptMaker()
WORKUNIT = workunit_name(ENROLMENT)


@pytest.fixture
def upload(tmp_path: Path) -> Path:
    path = tmp_path / f"{WORKUNIT}_0_r5_0"
    path.write_bytes(MANAGER.file(2))
    return path


def check(*words: object) -> int:
    return main([f"--manager-key={MANAGER.public}", *map(str, words)])


def test_the_amount_is_printed_as_a_plain_number(
    upload: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert check("--print-credit", upload) == 0
    assert capsys.readouterr().out == "2.000000\n"


def test_a_forged_file_is_invalid_and_the_line_is_named(
    upload: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    upload.write_bytes(MANAGER.file(1) + ReceiptMaker().file(1))
    assert check(upload) == 1
    said = capsys.readouterr()
    assert said.out == "" and "line 2" in said.err and upload.name in said.err


def test_a_receipt_counts_for_one_result(upload: Path, tmp_path: Path) -> None:
    ledger = ("--ledger", tmp_path / "ledger.db")
    second = upload.rename(tmp_path / f"{WORKUNIT}_1_r6_0")
    shutil.copy(second, upload)
    assert check(*ledger, upload) == 0
    assert check(*ledger, upload) == 0, "the same result again"
    assert check(*ledger, second) == 1, "another result with the same receipts"
    assert check("--no-ledger", second) == 0


def test_the_servers_trouble_makes_no_result_invalid(upload: Path, tmp_path: Path) -> None:
    assert check(tmp_path / f"{WORKUNIT}_7_r5_0") == 3, "the file is not there yet"
    assert check("--ledger", tmp_path / "no" / "ledger.db", upload) == 3
    assert main([str(upload)]) == 3, "no key"
    assert main(["--manager-key", "/nowhere", str(upload)]) == 3
    with pytest.raises(SystemExit) as ended:
        main(["--no-such-flag", str(upload)])
    assert ended.value.code == 3


def test_a_locked_ledger_means_later(upload: Path, tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    ledger = Ledger(path, patience=0.05)
    ledger.book("another", [])
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        ledger.book(f"{WORKUNIT}_0", [Counted("r-1", 1.0)])
    holder.close()
    ledger.book(f"{WORKUNIT}_0", [Counted("r-1", 1.0)])
    assert ledger.booked(f"{WORKUNIT}_0") == 1.0


def test_a_refused_result_books_nothing(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.db")
    ledger.book("a_0", [Counted("r-1", 1.0)])
    with pytest.raises(RefusedError, match="r-1 was already counted for a_0"):
        ledger.book("b_0", [Counted("r-2", 1.0), Counted("r-1", 1.0)])
    ledger.book("c_0", [Counted("r-2", 1.0)])
    assert (ledger.booked("b_0"), ledger.booked("c_0")) == (None, 1.0)


def test_of_many_validators_at_once_one_books(tmp_path: Path) -> None:
    def book(number: int) -> bool:
        try:
            Ledger(tmp_path / "ledger.db").book(f"a_{number}", [Counted("r-1", 1.0)])
        except RefusedError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(book, range(16))) == 1


def test_the_enrolment_may_be_said_where_the_name_does_not(upload: Path, tmp_path: Path) -> None:
    other = upload.rename(tmp_path / "receipts")
    assert check(other) == 1
    assert check("--enrolment", ENROLMENT, other) == 0
    assert check("--enrolment", "e-" + "0" * 20, other) == 1


def test_in_a_project_it_needs_nothing_but_the_files(upload: Path, repository: Path) -> None:
    """script_validator runs `../bin/receipt-check <file>` in a directory of the project."""
    project = upload.parent
    for name in ("bin", "tmp_host"):
        (project / name).mkdir()
    shutil.copy(repository / "deploy/boinc/receipt-check", project / "bin")
    (project / "manager.key").write_text(f"{MANAGER.public}\n")
    shutil.copy(repository / "deploy/boinc/copilot-credit.toml", project)
    (project / "copilot").symlink_to(sys.prefix)  # the virtual environment of the project
    done = subprocess.run(
        ["../bin/receipt-check", upload],
        cwd=project / "tmp_host",
        env={"PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert Ledger(project / "copilot-ledger.db").booked(f"{WORKUNIT}_0") == 2.0


def test_asking_for_the_amount_books_nothing(
    upload: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """manager.key, which the settings name, is not there: the flag is instead of it."""
    config, ledger = tmp_path / "copilot-credit.toml", tmp_path / "ledger.db"
    config.write_text('manager_keys = ["manager.key"]\nledger = "ledger.db"\n')
    words = ("--config", config, "--print-credit", upload)
    assert check(*words) == 0
    assert capsys.readouterr() == ("2.000000\n", "") and not ledger.exists()
    assert check(*words, "--ledger", ledger) == 0
    assert Ledger(ledger).booked(f"{WORKUNIT}_0") == 2.0


def test_a_given_key_stands_instead_of_those_of_the_settings(upload: Path, tmp_path: Path) -> None:
    config = tmp_path / "copilot-credit.toml"
    config.write_text(f'manager_keys = "{MANAGER.public}"\n')
    words = ["--config", str(config), "--no-ledger", str(upload)]
    assert main(words) == 0
    assert main([f"--manager-key={ReceiptMaker().public}", *words]) == 1


def test_a_validator_without_a_ledger_is_warned(
    upload: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert check(upload) == 0
    assert "not noticed; set ledger in copilot-credit.toml" in capsys.readouterr().err
    assert check("--no-ledger", upload) == 0
    assert capsys.readouterr().err == ""


def test_a_slip_in_the_settings_is_told(
    upload: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "copilot-credit.toml"
    for text, words in [
        ('manager_key = "x"', "manager_key: no such field"),
        ('app = "my app"', "app: must be letters, digits, _ and -, at most 64 characters"),
        ("most_credit = -1", "most_credit: must be more than 0.0"),
        ("ledger = 7", "ledger: must be a path, as text"),
    ]:
        config.write_text(f"{text}\n")
        assert check("--config", config, upload) == 3
        assert f"{config}: {words}\n" in capsys.readouterr().err
    assert check("--config", tmp_path / "no.toml", upload) == 3
    assert f"{tmp_path / 'no.toml'}: No such file or directory\n" in capsys.readouterr().err


def test_what_is_not_there_is_named(
    upload: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    key, ledger = tmp_path / "manager.key", tmp_path / "no" / "ledger.db"
    assert main(["--manager-key", str(key), str(upload)]) == 3
    said = capsys.readouterr().err
    assert f"{key} is not there" in said and "`copilot whoami` shows it" in said
    assert check("--ledger", ledger, upload) == 3
    assert f"the ledger {ledger}: unable to open database file" in capsys.readouterr().err


def test_a_receipt_of_another_manager_is_said_with_both_keys(
    upload: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = ReceiptMaker()
    upload.write_bytes(other.file(1))
    assert check(upload) == 1
    said = capsys.readouterr().err
    assert other.public in said and MANAGER.public in said and "manager_keys" in said


def test_a_server_without_our_packages_makes_no_result_invalid(
    upload: Path, repository: Path
) -> None:
    done = subprocess.run(
        ["/usr/bin/python3", "-I", repository / "deploy/boinc/receipt-check", upload],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 3
    assert "install cloud-copilot[boinc-project]" in done.stderr
