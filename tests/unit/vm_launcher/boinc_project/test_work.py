"""`vm-launcher boinc-project`: job templates, plan class and daemons."""

import pytest

from tests.unit.vm_launcher.boinc_project.conftest import Project, number, parse


def test_a_workunit_asks_for_what_the_vm_takes(project: Project) -> None:
    project.make("--memory", "1024", "--disk", "4096", "--cpus", "2", "--results", "4")
    work = project.template("copilot_in")
    assert work.findtext("workunit/command_line") == "boinc-task"
    assert work.findtext("workunit/file_ref/open_name") == "enrolment"
    assert 1024 << 20 < number(work, "rsc_memory_bound") < 1400 << 20
    assert (4096 + 1024) << 20 < number(work, "rsc_disk_bound") < (4096 + 2048) << 20
    flops, cores, day = 10e9, 2, 86400
    assert number(work, "rsc_fpops_bound") / (flops * cores) > 2 * day, "no fast PC is cut off"
    assert number(work, "delay_bound") >= 7 * day
    assert number(work, "max_total_results") == 4
    assert number(work, "min_quorum") == number(work, "target_nresults") == 1


def test_the_receipts_are_uploaded_and_reported_at_once(project: Project) -> None:
    project.make()
    out = (project.root / "templates" / "copilot_out").read_text()
    assert "<file_info>\n" in out, "the server looks for it with its line's end"
    tree = parse(out)
    assert tree.find("file_info/name/OUTFILE_0") is not None
    assert tree.find("file_info/url/UPLOAD_URL") is not None
    assert tree.findtext("result/file_ref/open_name") == "receipts"
    assert tree.find("result/report_immediately") is not None
    assert float(tree.findtext("file_info/max_nbytes", "0")) >= 1 << 20


@pytest.mark.parametrize(
    ("way", "granted_by", "other"),
    [
        ("receipts", "grant-credit", "trickle_credit"),
        ("trickles", "trickle_credit", "grant-credit"),
    ],
)
def test_credit_is_granted_one_way_only(
    project: Project, way: str, granted_by: str, other: str
) -> None:
    project.make("--credit", way, "--cpus", "2")
    text = (project.root / "copilot-snippets" / "config.xml").read_text()
    tree = parse(text[text.index("<daemons>") :])
    commands = [one.text or "" for one in tree.iter("cmd")]
    assert [command for command in commands if command.startswith(granted_by)]
    assert not [command for command in commands if command.startswith(other)]
    validators = [command for command in commands if command.startswith("script_validator")]
    assert len(validators) == 1
    assert "--no_credit" in validators[0]
    if way == "trickles":
        assert f"--max_runtime {2 * 25 * 3600}" in text, "a long job's receipt comes at its end"


def test_the_plan_class_is_for_many_processors(project: Project) -> None:
    project.make("--cpus", "4")
    tree = parse((project.root / "copilot-snippets" / "plan_class_spec.xml").read_text())
    assert tree.findtext("name") == "copilot_vm"
    assert not [word for word in ("vbox", "docker", "wsl", "mt") if word in "copilot_vm"]
    assert tree.findtext("max_threads") == "4"
    assert tree.findtext("min_libc_version") == "236"
