import os
from pathlib import Path

import pytest

from copilot_agent.core.events import Key
from copilot_agent.protocol.frames import Report
from copilot_agent.protocol.job import Outcome
from copilot_agent.spool import Spool
from tests.unit.copilot_agent.core.scenes import job_id


def report(number: int) -> Report:
    return Report(job=job_id(number), attempt=1, outcome=Outcome.SUCCEEDED)


def test_reports_are_found_again_until_they_are_dropped(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    for number in (2, 1):
        spool.keep(report(number))
    for age, path in enumerate(sorted((tmp_path / "reports").iterdir())):
        os.utime(path, (0, 1000 - age))
    assert Spool(tmp_path).reports() == (report(2), report(1))
    spool.drop(Key(job_id(2), 1))
    assert Spool(tmp_path).reports() == (report(1),)


def test_a_report_is_private(tmp_path: Path) -> None:
    Spool(tmp_path).keep(report(1))
    (path,) = (tmp_path / "reports").iterdir()
    assert path.stat().st_mode & 0o777 == 0o600


def test_rubbish_is_put_aside_and_the_rest_is_found(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    spool = Spool(tmp_path)
    spool.keep(report(1))
    (tmp_path / "reports" / "torn.json").write_text('{"job"')
    assert spool.reports() == (report(1),)
    assert "torn.json" in caplog.text
    assert spool.reports() == (report(1),)


def test_what_is_unfinished_is_found_again(tmp_path: Path) -> None:
    keys = (Key(job_id(1), 1), Key(job_id(2), 7))
    Spool(tmp_path).keep_unfinished(keys)
    assert Spool(tmp_path).unfinished() == keys
    assert Spool(tmp_path / "new").unfinished() == ()


def test_a_shorter_list_of_the_next_agent_leaves_nothing_of_the_longer(tmp_path: Path) -> None:
    keys = tuple(Key(job_id(number), 1) for number in range(3))
    Spool(tmp_path).keep_unfinished(keys)
    later = Spool(tmp_path)
    for shorter in (keys[:1], keys[:2], ()):
        later.keep_unfinished(shorter)
        assert Spool(tmp_path).unfinished() == shorter
    Spool(tmp_path).keep_unfinished(keys)
    Spool(tmp_path).keep_unfinished(())
    assert Spool(tmp_path).unfinished() == ()


@pytest.mark.parametrize("text", ["[[1, 2", '[["../../etc", 1]]', "[5]", '{"a": 1}'])
def test_an_unreadable_list_is_no_reason_to_stop(
    tmp_path: Path, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    spool = Spool(tmp_path)
    (tmp_path / "unfinished.json").write_text(text)
    assert spool.unfinished() == ()
    assert "unreadable" in caplog.text
