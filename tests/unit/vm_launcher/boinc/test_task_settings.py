"""What a project may write into launcher.toml."""

from pathlib import Path

import pytest

from vm_launcher.boinc.task_settings import load_task_settings
from vm_launcher.settings import SettingsError

MANAGER = 'manager = "https://copilot.example.org"\n'


def test_what_is_not_said_has_a_sensible_value(tmp_path: Path) -> None:
    file = tmp_path / "launcher.toml"
    file.write_text(MANAGER + "[vm]\ncpus = 4\n[task]\ntask_seconds = 20\n")
    settings = load_task_settings(file)
    assert (settings.vm.cpus, settings.vm.memory_mib) == (4, 512)
    assert (settings.task.task_seconds, settings.task.idle_end_seconds) == (20, 14400)
    assert settings.credit.way == "receipts"


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("[vm]\nmemory_mib = 10\n", "vm.memory_mib"),
        ("[task]\nidle_exit_seconds = 86401\n", "task.idle_exit_seconds"),
        ("[credit]\nway = 'both'\n", "credit.way"),
        ("enrolment = 'a secret does not belong here'\n", "enrolment"),
        ("manager = 'ftp://copilot.example.org'\n", "manager"),
        ("ca_certificates = '\\u0000'\n".replace("'", '"'), "ca_certificates"),
        ("allow = 'a.example:443'\n", "allow"),
        ("allow = ['a.example:443', 'a.example']\n", "allow[1]"),
        ("allow_local = ['127.1:80']\n", "allow_local[0]"),
        ("manager = 'http://:80'\n", "manager"),
        ("xmpp = 'a.example:99999'\n", "xmpp"),
        ("ca_certificates = 'no certificate'\n", "ca_certificates"),
    ],
)
def test_a_wrong_value_is_named(tmp_path: Path, text: str, field: str) -> None:
    file = tmp_path / "launcher.toml"
    file.write_text(text if text.startswith("manager") else MANAGER + text)
    with pytest.raises(SettingsError) as caught:
        load_task_settings(file)
    assert [one.field for one in caught.value.errors] == [field]
    assert "launcher.toml" in caught.value.remedy


@pytest.mark.parametrize("data", [None, b"vm = [", b"\xff", b"#" * 300_000])
def test_what_is_no_settings_file_is_refused(tmp_path: Path, data: bytes | None) -> None:
    file = tmp_path / "launcher.toml"
    if data is not None:
        file.write_bytes(data)
    with pytest.raises(SettingsError, match=r"launcher\.toml"):
        load_task_settings(file)
