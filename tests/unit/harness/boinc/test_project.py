"""What the tests' BOINC project makes of its directory, and how it takes what clients send."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.harness.boinc.project import BoincProject, processors
from tests.harness.boinc.scheduler import Scheduler
from tests.harness.boinc.tiny_project import APP, PLATFORM, PROGRAM, tiny_project
from tests.harness.boinc.upload import UploadHandler
from tests.harness.boinc.versions import read_versions
from tests.harness.boinc.work import Report
from tests.harness.boinc.xml import block, line, parse, text_of
from vm_launcher.boinc_project.signing import PrivateKey, sign_file, sign_text, verify_text

KEY = PrivateKey.generate()


@pytest.fixture
def project(tmp_path: Path) -> BoincProject:
    return BoincProject(tiny_project(tmp_path / "project"), usage=processors(2, "--nthreads 2"))


def version_directory(project: BoincProject) -> Path:
    return project.directory / "apps" / APP / "1.00" / PLATFORM


def ask(project: BoincProject, *more: str, host: int = 1, seconds: float = 100.0) -> str:
    scheduler = Scheduler(project.shelf, lambda report: 5.0, lambda what: None)
    return scheduler.answer(
        block(
            "scheduler_request",
            line("authenticator", project.authenticator),
            line("hostid", host),
            line("work_req_seconds", seconds),
            line("platform_name", PLATFORM),
            *more,
        )
    )


def report(name: str, exit_status: int = 0, state: int = 5) -> str:
    ending = line("exit_status", exit_status) + line("state", state)
    return block("result", line("name", name), ending, line("final_cpu_time", 7.5))


# versions


def test_files_are_signed_with_the_key_of_the_project_unless_a_signature_lies_beside(
    project: BoincProject,
) -> None:
    directory = version_directory(project)
    beside = KEY.sign("0" * 32)
    (directory / "layer_1.sig").write_text(beside)
    (version,) = read_versions(project.directory)
    files = {file.physical_name: file for file in version.files}
    assert files.keys() == {PROGRAM, "layer_1"}
    assert files["layer_1"].signature == beside
    key = PrivateKey.from_text((project.directory / "keys" / "code_sign_private").read_text())
    assert files[PROGRAM].signature == sign_file(directory / PROGRAM, key)


def test_a_version_without_one_of_its_files_is_refused(project: BoincProject) -> None:
    (version_directory(project) / "layer_1").unlink()
    with pytest.raises(ValueError, match="lacks layer_1"):
        read_versions(project.directory)


def test_a_name_never_gets_another_content(project: BoincProject) -> None:
    (version_directory(project) / "layer_1").write_bytes(b"another")
    with pytest.raises(ValueError, match="layer_1 was staged before"):
        project.reread_versions()


def test_the_newest_version_is_the_one_sent(project: BoincProject) -> None:
    newer = project.directory / "apps" / APP / "1.01" / PLATFORM
    newer.mkdir(parents=True)
    (newer / "tiny_1.01").write_bytes(b"newer")
    project.reread_versions()
    project.create_work("wu", {"in": b""}, app=APP)
    reply = parse(ask(project))
    assert text_of(reply, "app_version/version_num") == "101"
    assert text_of(reply, "result/version_num") == "101"


# work


def test_a_workunit_says_what_its_template_says_unless_told_otherwise(
    project: BoincProject,
) -> None:
    project.create_work("wu", {"in": b"abc"}, app=APP, command_line="boinc-task", rsc_disk_bound=5)
    reply = parse(ask(project))
    workunit = reply.find("workunit")
    assert workunit is not None
    assert text_of(workunit, "command_line") == "boinc-task"
    assert text_of(workunit, "file_ref/file_name") == "in"
    assert text_of(workunit, "file_ref/open_name") == "greeting"
    assert float(text_of(workunit, "rsc_disk_bound")) == 5
    assert float(text_of(workunit, "rsc_fpops_bound")) == 1e13
    assert text_of(reply, "app_version/cmdline") == "--nthreads 2"
    assert reply.find("app_version/is_wrapper") is not None


def test_output_names_are_those_of_boinc_and_their_certificate_holds(
    project: BoincProject,
) -> None:
    (name,) = project.create_work("copilot_e-1", {"in": b""}, app=APP)
    output = project.result(name).outputs["receipts"]
    assert output.startswith("copilot_e-1_0_r")
    assert output.endswith("_0")
    key = PrivateKey.from_text((project.directory / "keys" / "upload_private").read_text())
    infos = parse(ask(project)).findall("file_info")
    (signature,) = (
        text_of(info, "xml_signature") for info in infos if text_of(info, "name") == output
    )
    text = f"<name>{output}</name><max_nbytes>100000</max_nbytes>"
    assert verify_text(text, signature, key.public)


def test_no_host_gets_two_results_of_a_workunit(project: BoincProject) -> None:
    project.create_work("wu", {"in": b""}, app=APP, results=2)
    assert len(parse(ask(project, host=1)).findall("result")) == 1
    assert len(parse(ask(project, host=1)).findall("result")) == 0
    assert len(parse(ask(project, host=2)).findall("result")) == 1


@pytest.mark.parametrize("more", [line("dont_send_work", 1), ""])
def test_who_asks_for_no_work_gets_none(project: BoincProject, more: str) -> None:
    project.create_work("wu", {"in": b""}, app=APP)
    seconds = 100.0 if more else 0.0
    assert not parse(ask(project, more, seconds=seconds)).findall("result")


def test_a_stranger_gets_nothing(project: BoincProject) -> None:
    project.create_work("wu", {"in": b""}, app=APP)
    project.shelf.authenticator = "another"
    reply = Scheduler(project.shelf, None, lambda what: None).answer(
        block("scheduler_request", line("authenticator", "x"), line("work_req_seconds", 1))
    )
    assert "<result>" not in reply


# reports and credit


def test_credit_is_granted_once_however_often_a_report_comes(project: BoincProject) -> None:
    (name,) = project.create_work("wu", {"in": b""}, app=APP)
    ask(project)
    for _ in range(2):
        reply = parse(ask(project, report(name)))
        assert text_of(reply, "result_ack/name") == name
        assert float(text_of(reply, "host_total_credit")) == 5.0
    told = project.result(name).report
    assert isinstance(told, Report)
    assert told.cpu_seconds == 7.5


@pytest.mark.parametrize(("exit_status", "state"), [(207, 3), (0, 3), (203, 6)])
def test_a_failed_task_earns_nothing(project: BoincProject, exit_status: int, state: int) -> None:
    (name,) = project.create_work("wu", {"in": b""}, app=APP)
    ask(project)
    ask(project, report(name, exit_status, state))
    assert project.credit == 0
    assert project.result(name).report is not None


def test_trickles_are_kept_and_acknowledged(project: BoincProject) -> None:
    inside = line("result_name", "wu_0") + line("time", 5) + line("variety", "copilot_runtime")
    reply = parse(ask(project, block("msg_from_host", inside, line("runtime", 2.5))))
    assert reply.find("message_ack") is not None
    (trickle,) = project.trickles
    assert (trickle.result, trickle.variety) == ("wu_0", "copilot_runtime")
    assert trickle.number("runtime") == 2.5


# uploads


def upload(name: str, data: bytes, size: int, offset: int = 0, most: int = 100) -> bytes:
    signature = sign_text(f"<name>{name}</name><max_nbytes>{most}</max_nbytes>", KEY)
    heading = (
        f"<file_upload><file_info><name>{name}</name><xml_signature>\n{signature}</xml_signature>\n"
        f"<max_nbytes>{most}</max_nbytes></file_info>\n<nbytes>{size}</nbytes>\n"
        f"<offset>{offset}</offset>\n<data>\n"
    )
    return heading.encode() + data


def test_an_upload_goes_on_where_it_was_cut(tmp_path: Path) -> None:
    handler = UploadHandler(tmp_path / "upload", KEY.public)
    reply, whole = handler.answer(upload("out", b"abc", size=6))
    assert (text_of(parse(reply), "status"), whole) == ("1", None)
    reply, _ = handler.answer(b"<data_server_request><get_file_size>out</get_file_size>")
    assert text_of(parse(reply), "file_size") == "3"
    reply, whole = handler.answer(upload("out", b"def", size=6, offset=3))
    assert text_of(parse(reply), "status") == "0"
    assert whole is not None
    assert whole.read_bytes() == b"abcdef"


@pytest.mark.parametrize(
    "body",
    [
        upload("../out", b"abc", size=3),
        upload("out", b"a" * 101, size=101),
        upload("out", b"abc", size=3).replace(b"<max_nbytes>100<", b"<max_nbytes>999<"),
        b"",
    ],
)
def test_an_upload_that_was_not_agreed_upon_is_refused_for_good(
    tmp_path: Path, body: bytes
) -> None:
    handler = UploadHandler(tmp_path / "upload", KEY.public)
    reply, whole = handler.answer(body)
    assert (text_of(parse(reply), "status"), whole) == ("-1", None)
    assert not list((tmp_path / "upload").iterdir())
