"""The doctor finds what is wrong and says what to do."""

import json
from pathlib import Path

import pytest

from vm_launcher.cli import main
from vm_launcher.doctor import Finding, Level, Question
from vm_launcher.doctor.host import DiskSpace, Hypervisor, Memory, QemuImg, StateWritable
from vm_launcher.doctor.outside import ImageCheck, ManagerReachable
from vm_launcher.settings import VmSettings

VM = VmSettings()


def level(finding: Finding | None) -> Level | None:
    return finding.level if finding else None


def test_no_qemu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    for check in (Hypervisor(), QemuImg()):
        finding = check.look(Question(VM))
        assert finding is not None
        assert finding.level is Level.FAIL
        assert "apt install" in finding.remedy


def test_an_old_qemu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program = tmp_path / "qemu-system-x86_64"
    program.write_text("#!/bin/sh\necho 'QEMU emulator version 5.2.0 (Debian)'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin")
    finding = Hypervisor().look(Question(VM))
    assert finding.level is Level.FAIL
    assert "5.2.0" in finding.text


def test_memory(tmp_path: Path) -> None:
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal: 9000000 kB\nMemAvailable:  512000 kB\n")
    finding = Memory(meminfo).look(Question(VM))
    assert finding.level is Level.FAIL
    assert "500 MiB available" in finding.text
    meminfo.write_text("MemAvailable: 8000000 kB\n")
    assert Memory(meminfo).look(Question(VM)).level is Level.OK
    meminfo.write_text("nonsense")
    assert Memory(meminfo).look(Question(VM)).level is Level.WARN


def test_disk(tmp_path: Path) -> None:
    assert DiskSpace().look(Question(VM)) is None, "not asked"
    huge = VmSettings(disk_mib=1 << 26)
    finding = DiskSpace().look(Question(huge, state=tmp_path / "not" / "there"))
    assert finding is not None
    assert finding.level is Level.FAIL
    assert "--disk" in finding.remedy


def test_state_directory(tmp_path: Path) -> None:
    assert level(StateWritable().look(Question(VM, state=tmp_path / "new"))) is Level.OK
    (tmp_path / "file").touch()
    assert level(StateWritable().look(Question(VM, state=tmp_path / "file"))) is Level.FAIL


def test_image(tmp_path: Path) -> None:
    assert level(ImageCheck().look(Question(VM, image=tmp_path))) is Level.WARN
    key = tmp_path / "key"
    finding = ImageCheck().look(Question(VM, image=tmp_path, image_key=key))
    assert level(finding) is Level.FAIL


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "file:///etc/passwd", "nonsense"])
def test_a_manager_that_does_not_answer(url: str) -> None:
    assert level(ManagerReachable().look(Question(VM, manager=url))) is Level.FAIL


def test_the_command_for_programs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    code = main(["doctor", "--output", "json", "--state", str(tmp_path)])
    findings = {one["check"]: one for one in json.loads(capsys.readouterr().out)}
    assert code == 4
    assert findings["hypervisor"]["level"] == "fail"
    assert findings["state directory"]["level"] == "ok"


def test_a_wrong_size_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--memory", "5"]) == 2
    assert "memory_mib" in capsys.readouterr().err
