"""`grant-credit` on a real MariaDB: each receipt is paid once, whatever happens in between."""

import signal
import time
from collections.abc import Callable

import pytest

from job_manager_adapter.boinc_project.averages import grown
from job_manager_adapter.boinc_project.cli import receipt_check
from job_manager_adapter.boinc_project.ledger import Ledger
from tests.integration.boinc_project.conftest import SENT, BoincProject

BEFORE = {"host": 10.0, "user": 20.0, "team": 50.0, "result": 0.0}


def after(amount: float) -> dict[str, float]:
    return {table: total + amount for table, total in BEFORE.items()}


def test_result_host_user_and_team_get_what_receipts_say(project: BoincProject) -> None:
    result = project.add(count=3)
    code, said = project.run()
    assert code == 0, said
    assert f"granted 3.000000 to {result.name}: host 1, user 1, team 1" in said
    assert project.credit() == after(3.0)
    for table in ("host", "user", "team"):
        ((average, at),) = project.sql(f"SELECT expavg_credit, expavg_time FROM {table}")  # noqa: S608
        assert average == pytest.approx(grown(0, 0, 3.0, SENT, at))


def test_a_second_pass_pays_nothing_again(project: BoincProject) -> None:
    project.add()
    project.run()
    code, said = project.run()
    assert (code, "granted" in said, project.credit()) == (0, False, after(2.0))


def test_others_are_let_alone(project: BoincProject) -> None:
    project.add(valid=False)
    project.add(app=2)
    project.run()
    assert project.credit() == BEFORE


def test_more_results_than_a_page_are_all_paid(project: BoincProject) -> None:
    for _ in range(205):
        project.add(count=1)
    project.run()
    assert project.credit() == after(205.0)


def test_a_user_without_a_team_and_a_host_that_is_gone(project: BoincProject) -> None:
    project.sql("UPDATE user SET teamid = 0")
    project.add()
    gone = project.add(host=9)
    _, said = project.run()
    assert f"{gone.name}: host 9, user 0, team 0" in said
    assert project.credit() == {"host": 12.0, "user": 22.0, "team": 50.0, "result": 4.0}


def test_a_dry_run_tells_and_changes_nothing(project: BoincProject) -> None:
    result = project.add()
    code, said = project.run("--dry-run")
    assert code == 0 and f"would grant 2.000000 to {result.name}" in said
    assert project.credit() == BEFORE
    assert Ledger(project.directory / "ledger.db").booked(result.name) is None


def test_what_the_validator_booked_is_paid_when_the_file_is_gone(project: BoincProject) -> None:
    """BOINC's file_deleter may be faster."""
    booked, lost = project.add(), project.add()
    config = project.directory / "copilot-credit.toml"
    assert receipt_check.main(["--config", str(config), str(booked.file)]) == 0
    booked.file.unlink()
    lost.file.unlink()
    _, said = project.run()
    assert project.credit() == after(2.0)
    assert f"{lost.name}: [Errno 2]" in said and str(lost.file) in said


def test_a_file_that_cannot_be_read_holds_up_nobody_else(project: BoincProject) -> None:
    odd = project.add()
    project.add()
    odd.file.unlink()
    odd.file.mkdir()
    _, said = project.run()
    assert f"{odd.name}: [Errno 21]" in said
    assert project.credit() == after(2.0)


def test_a_forged_file_is_paid_nothing_though_it_was_found_valid(project: BoincProject) -> None:
    result = project.add()
    result.file.write_bytes(result.file.read_bytes().replace(b'"granted":1.0', b'"granted":99.0'))
    _, said = project.run()
    assert f"{result.name} was found valid, but" in said and "signature" in said
    assert project.credit() == BEFORE


def test_receipts_of_another_result_are_paid_nothing(project: BoincProject) -> None:
    second = project.add().name[:-1] + "1"
    project.sql(
        "INSERT INTO result SELECT NULL, workunitid, server_state, outcome, hostid, userid,"
        " sent_time, %s, xml_doc_in, validate_state, 0, appid, teamid, mod_time FROM result",
        second,
    )
    _, said = project.run()
    assert f"{second} was found valid, but" in said and "not called after it" in said
    assert project.credit() == after(2.0)


@pytest.mark.parametrize("table", ["result", "host", "user", "team"])
def test_killed_in_the_middle_it_pays_once(project: BoincProject, table: str) -> None:
    """Each step but the last has been done when it waits for a row that the test holds."""
    project.add()
    holder = project.mariadb.connect(project.database)
    with holder.cursor() as cursor:
        cursor.execute(f"SELECT id FROM {table} WHERE id = 1 FOR UPDATE")  # noqa: S608
    daemon = project.start("--one-pass")
    _wait_for_lock(project, table)
    daemon.send_signal(signal.SIGKILL)
    daemon.wait()
    holder.rollback()
    holder.close()
    _wait_for_no_lock(project)
    assert project.credit() == BEFORE
    project.run()
    project.run()
    assert project.credit() == after(2.0)


def test_two_daemons_at_once_pay_once(project: BoincProject) -> None:
    for _ in range(40):
        project.add(count=1)
    both = [project.start("--one-pass") for _ in range(2)]
    said = [daemon.communicate(timeout=60)[1] for daemon in both]
    assert [daemon.returncode for daemon in both] == [0, 0], said
    assert "".join(said).count("granted 1.000000") == 40
    assert project.credit() == after(40.0)


@pytest.mark.parametrize("how", [signal.SIGHUP, signal.SIGTERM, None])
def test_it_serves_until_it_is_told_to_stop(
    project: BoincProject, how: signal.Signals | None
) -> None:
    daemon = project.start("--interval", "0.1")
    project.add()
    assert daemon.stderr is not None
    while "granted 2.000000" not in (line := daemon.stderr.readline()):
        assert line, "it ended"
    if how is None:
        (project.directory / "stop_daemons").touch()
    else:
        daemon.send_signal(how)
    assert daemon.wait(timeout=10) == 0
    assert "ended" in daemon.stderr.read()


def test_a_database_that_is_away_is_said_without_its_password(project: BoincProject) -> None:
    code, said = project.run("--socket", "/nowhere/socket")
    assert code == 1 and "this pass ended early" in said and "secret" not in said
    assert "database_socket in copilot-credit.toml or --socket, db_host in config.xml" in said


def test_a_database_that_refuses_us_is_said_with_the_settings(project: BoincProject) -> None:
    path = project.directory / "config.xml"
    path.write_text(path.read_text().replace("<db_name>", "<db_name>no_"))
    code, said = project.run()
    assert code == 1 and "see db_user, db_passwd and db_name in config.xml" in said


def test_settings_that_miss_something_are_told(project: BoincProject) -> None:
    (project.directory / "copilot-credit.toml").write_text('ledger = "ledger.db"\n')
    code, said = project.run()
    assert code == 1 and "manager_keys in copilot-credit.toml" in said
    (project.directory / "config.xml").write_text("<boinc><config>&password;</config></boinc>")
    code, said = project.run()
    assert code == 1 and "config.xml" in said and "password" not in said


_WAITING = (
    "SELECT count(*) FROM information_schema.innodb_trx WHERE trx_state = 'LOCK WAIT'"
    " AND trx_query LIKE %s"
)


def _wait_for_lock(project: BoincProject, table: str) -> None:
    _until(lambda: project.sql(_WAITING, f"%FROM %{table}%")[0][0] == 1)


def _wait_for_no_lock(project: BoincProject) -> None:
    """The server has noticed that its client is gone."""
    _until(lambda: project.sql("SELECT count(*) FROM information_schema.innodb_trx")[0][0] == 0)


def _until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.15)  # the server renews these tables only after 0.1 s without a reader
