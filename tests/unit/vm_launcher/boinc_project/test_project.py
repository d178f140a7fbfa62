"""`vm-launcher boinc-project`: what lies in a project's directory, and what is refused."""

import os
import re

import pytest

from tests.harness.certificates import Authority
from tests.unit.vm_launcher.boinc_project.conftest import MARKED, Project, number, parse
from tests.unit.vm_launcher.images.conftest import digest
from vm_launcher.boinc.task_settings import load_task_settings
from vm_launcher.boinc_project import PrivateKey, verify_file
from vm_launcher.cli import main

FLAGS = {"is_wrapper", "dont_throttle", "needs_network"}
LOGICAL = {
    *("launcher.toml", "image-key.pub", "manifest.json", "manifest.json.sig"),
    *("vmlinux", "initrd", "base.squashfs", "agent.squashfs"),
}


def test_an_application_version_has_all_that_a_task_opens(project: Project) -> None:
    assert project.make() == 0
    files = project.files()
    assert files.keys() == {"", *LOGICAL}
    assert {path.name for path in project.version().iterdir()} == {
        "version.xml", *(path.name for path in files.values()),
    }  # fmt: skip
    for role, name in (("kernel", "vmlinux"), ("initrd", "initrd"), ("base", "base.squashfs")):
        assert files[name].read_bytes() == project.image.plain(role), "unpacked"
    assert (
        files["manifest.json.sig"].read_bytes()
        == (project.image.directory / "manifest.json.sig").read_bytes()
    )
    assert os.access(files[""], os.X_OK)


def test_the_client_is_told_how_to_treat_it(project: Project) -> None:
    project.make()
    tree = parse((project.version() / "version.xml").read_text())
    assert tree.tag == "version"
    assert {flag for flag in FLAGS if tree.find(flag) is not None} == FLAGS
    assert tree.findtext("api_version", "") >= "6"
    files = tree.findall("file")
    assert [one.findtext("physical_name") for one in files if one.find("main_program") is not None
            ] == [project.files()[""].name]  # fmt: skip
    assert {one.findtext("logical_name") for one in files if one.find("gzip") is not None} == {
        "vmlinux", "initrd", "base.squashfs",
    }  # fmt: skip
    names = [one.findtext("physical_name", "") for one in files]
    assert not [name for name in names if ".sig" in name], "update_versions skips those"
    assert all(re.fullmatch(r"copilot_[A-Za-z0-9._-]+", name) for name in names)


def test_the_settings_are_those_that_were_given(project: Project) -> None:
    ca = project.home / "ca.pem"
    Authority(ca)
    ca.write_text(f'a "word" before it \\\n{ca.read_text()}')
    given = ["--cpus", "2", "--task-hours", "0.5", "--credit", "trickles", "--ca-file", str(ca)]
    given += ["--allow", "a.example:443", "--no-emulation", "--xmpp", "x.example:5222"]
    assert project.make(*given) == 0
    settings = load_task_settings(project.files()["launcher.toml"])
    assert settings.manager == "https://copilot.example.org"
    assert settings.ca_certificates == ca.read_text()
    assert (settings.vm.cpus, settings.vm.allow_emulation) == (2, False)
    assert (settings.task.task_seconds, settings.credit.way) == (1800, "trickles")
    assert (settings.allow, settings.xmpp) == (("a.example:443",), "x.example:5222")


def test_a_settings_file_is_taken_with_flags_before_it(project: Project) -> None:
    file = project.home / "mine.toml"
    file.write_text('manager = "https://other.example"\n[task]\nidle_seconds = 7\n')
    assert project.make("--settings", str(file)) == 0
    settings = load_task_settings(project.files()["launcher.toml"])
    assert (settings.manager, settings.task.idle_seconds) == ("https://copilot.example.org", 7)


def test_a_new_agent_ships_only_its_layer(project: Project) -> None:
    project.make()
    agent = project.image.directory / "agent"
    agent.write_bytes(b"a new agent")
    project.image.manifest["serial"] = 6
    project.image.manifest["layers"][3] |= {"sha256": digest(b"a new agent"), "size": 11}
    project.image.write()
    assert project.make("--version", "1.01") == 0
    old, new = project.files("1.00"), project.files("1.01")
    changed = {logical for logical in new if old[logical].name != new[logical].name}
    assert changed == {"agent.squashfs", "manifest.json", "manifest.json.sig"}


def test_twice_is_as_good_as_once(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    project.make()
    before = project.everything()
    assert project.make() == 0
    assert "already there" in capsys.readouterr().out
    assert project.everything() == before


def test_a_version_with_other_content_is_refused(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    project.make()
    before = project.everything()
    project.launcher.write_bytes(MARKED + b"exit 1\n")
    assert project.make() == 1
    said = capsys.readouterr().err
    assert "vm-launcher" in said
    assert "--version" in said
    assert project.everything() == before


def test_an_edited_template_stays(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    project.make()
    template = project.root / "templates" / "copilot_in"
    ours = template.read_text()
    template.write_text("<mine/>")
    assert project.make() == 0
    said = capsys.readouterr().out
    assert re.search(r"^  1\. templates/copilot_in .*copilot_in\.new", said, re.MULTILINE)
    assert template.read_text() == "<mine/>"
    assert template.with_name("copilot_in.new").read_text() == ours


def test_a_template_that_nobody_edited_is_brought_up_to_date(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    project.make()
    project.template("copilot_in")
    (project.root / "templates" / "copilot_out").write_text("<mine/>")
    capsys.readouterr()
    assert project.make("--version", "1.01", "--results", "9") == 0
    assert number(project.template("copilot_in"), "max_total_results") == 9
    assert (project.root / "templates" / "copilot_out").read_text() == "<mine/>"
    made = {path.name for path in (project.root / "templates").iterdir()}
    assert made == {"copilot_in", "copilot_out", "copilot_out.new"}
    said = capsys.readouterr().out
    assert "copilot_out.new" in said
    assert "templates/copilot_in" not in said


def test_another_way_of_credit_names_the_daemons_to_take_out(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    project.make()
    for _ in range(2):  # whoever has overlooked it may ask again
        capsys.readouterr()
        assert project.make("--version", "1.01", "--credit", "trickles") == 0
        assert "take grant-credit" in capsys.readouterr().out
    assert project.make("--version", "1.02", "--credit", "trickles") == 0
    assert "grant-credit" not in capsys.readouterr().out


def test_the_deadline_is_told(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    project.make("--task-hours", "4")
    days = number(project.template("copilot_in"), "delay_bound") / 86400
    assert f"deadline: {days:.1f} days" in capsys.readouterr().out


def test_an_image_that_must_not_boot_is_not_shipped(project: Project) -> None:
    (project.image.directory / "agent").write_bytes(b"evil")
    assert project.make() == 3
    assert project.left() == set()


@pytest.mark.parametrize(
    "words",
    [
        ("--version", "1"), ("--version", "1.0.0"), ("--version", "../1.00"), ("--app", "../x"),
        ("--app", "Co Pilot"), ("--results", "0"), ("--memory", "1"), ("--manager", "ftp://x"),
        ("--settings", "/nowhere"), ("--task-hours", "nan"), ("--sign", "/nowhere"),
        ("--version", "9.1"), ("--ca-file", "/nowhere"), ("--ca-file", __file__),
        ("--allow", "a.example"), ("--allow-local", "a.example:0"), ("--cpus", "0"),
    ],
)  # fmt: skip
def test_wrong_words_are_named(
    project: Project, words: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert project.make(*words) == 2
    said = capsys.readouterr().err
    assert (words[1] if words[0] == "--settings" else words[0]) in said
    assert "Errno" not in said
    assert project.left() == set()


def test_a_missing_manager_is_asked_for_by_its_flag(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--launcher", str(project.launcher), "--image", str(project.image.directory))
    assert main(["boinc-project", str(project.root), *words]) == 2
    assert "--manager: is missing" in capsys.readouterr().err


def test_a_directory_of_no_project_is_refused(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    (project.root / "config.xml").unlink()
    assert project.make() == 1
    assert "config.xml" in capsys.readouterr().err
    assert project.left() == set()


@pytest.mark.parametrize("data", [b"", b"#!/bin/sh\n", b"\x7fELF"])
def test_what_is_not_our_launcher_is_refused(
    project: Project, data: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    project.launcher.write_bytes(data)
    assert project.make() == 1
    assert "--launcher" in capsys.readouterr().err
    assert project.left() == set()


@pytest.mark.parametrize(
    ("manager", "warned"),
    [
        ("https://copilot.example.org", []),
        ("http://copilot.example.org", ["plain http"]),
        ("https://localhost:8443", ["loopback"]),
        ("http://127.0.0.1:9", ["loopback", "plain http"]),
        ("https://[::1]:8443", ["loopback"]),
    ],
)
def test_a_manager_that_volunteers_should_not_get_is_warned_of(
    project: Project, manager: str, warned: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert project.make("--manager", manager) == 0
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == len(warned)
    assert all(word in line for word, line in zip(warned, lines, strict=True))


def test_a_private_key_is_not_handed_to_volunteers(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    _, key = Authority(project.home / "ca.pem").server(project.home, "copilot.example.org")
    assert project.make("--ca-file", str(key)) == 2
    assert "private key" in capsys.readouterr().err


def test_with_the_key_every_file_is_signed(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    key = PrivateKey.generate()
    file = project.home / "code_sign_private"
    file.write_text(key.text())
    project.make()
    assert "boinc-sign" in capsys.readouterr().out
    assert project.make("--sign", str(file)) == 0
    assert "boinc-sign" not in capsys.readouterr().out
    for path in project.files().values():
        assert verify_file(path, path.with_name(f"{path.name}.sig").read_text(), key.public)


def test_a_signature_that_does_not_hold_is_named_and_stays(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    file = project.home / "code_sign_private"
    file.write_text(PrivateKey.generate().text())
    project.make()
    agent = project.files()["agent.squashfs"]
    signature = agent.with_name(f"{agent.name}.sig")
    signature.write_text("junk")
    for words in ((), ("--sign", str(file))):
        assert project.make(*words) == 1
        assert signature.name in capsys.readouterr().err
    assert signature.read_text() == "junk"
    assert list(project.version().glob("*.sig")) == [signature]


def test_the_projects_own_key_counts(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    """Which keys/code_sign_public is there for."""
    (project.root / "keys").mkdir()
    project.make()
    for name in ("own", "other"):
        assert main(["boinc-sign", "--new-key", str(project.home / name)]) == 0
    (project.home / "own/code_sign_public").rename(project.root / "keys/code_sign_public")
    assert project.make("--sign", str(project.home / "other/code_sign_private")) == 1
    assert "--sign" in capsys.readouterr().err
    assert list(project.version().glob("*.sig")) == []
    other = str(project.home / "other/code_sign_private")
    assert main(["boinc-sign", other, str(project.version())]) == 0
    assert project.make() == 1
    assert "no signature" in capsys.readouterr().err
