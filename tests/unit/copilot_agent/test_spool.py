import resource
import signal
from pathlib import Path

import pytest

from copilot_agent.core.events import Key
from copilot_agent.journal import COMPACT_BYTES
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
    assert Spool(tmp_path).reports() == (report(2), report(1))
    spool.drop(Key(job_id(2), 1))
    assert Spool(tmp_path).reports() == (report(1),)
    Spool(tmp_path).drop(Key(job_id(1), 1))
    assert Spool(tmp_path).reports() == ()


def test_a_report_is_private(tmp_path: Path) -> None:
    Spool(tmp_path).keep(report(1))
    (path,) = tmp_path.iterdir()
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "rubbish", [b'{"report": {"job', b"5", b'{"answered": [[], 1, 2]}', b"\xff"]
)
def test_rubbish_is_left_out_and_the_rest_is_found(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, rubbish: bytes
) -> None:
    Spool(tmp_path).keep(report(1))
    with (tmp_path / "reports.jsonl").open("ab") as file:
        file.write(b"\n" + rubbish)
    Spool(tmp_path).keep(report(2))
    assert Spool(tmp_path).reports() == (report(1), report(2))
    assert "line 3 is no report" in caplog.text


def test_the_reports_file_stays_small(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    spool.keep(report(1))
    for number in range(2, 1200):
        spool.keep(report(number).model_copy(update={"message": "x" * 2000}))
        spool.drop(Key(job_id(number), 1))
    assert (tmp_path / "reports.jsonl").stat().st_size <= COMPACT_BYTES + 3000
    assert Spool(tmp_path).reports() == (report(1),)


def test_no_report_is_lost_when_the_file_is_written_anew(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    spool.keep(report(1))
    before = 0
    for number in range(2, 2000):
        spool.keep(report(number).model_copy(update={"message": "x" * 2000}))
        size = (tmp_path / "reports.jsonl").stat().st_size
        if size < before:
            assert Key(job_id(number), 1) in {Key(it.job, 1) for it in Spool(tmp_path).reports()}
            return
        before = size
        spool.drop(Key(job_id(number), 1))
    raise AssertionError("the file was never written anew")


def test_a_full_disk_leaves_no_half_report(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    spool.keep(report(1))
    size = (tmp_path / "reports.jsonl").stat().st_size
    kept = resource.getrlimit(resource.RLIMIT_FSIZE)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 100, kept[1]))
    try:
        with pytest.raises(OSError):
            spool.keep(report(2))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, kept)
    assert spool.reports() == (report(1),)
    spool.keep(report(3))
    assert Spool(tmp_path).reports() == (report(1), report(3))


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
