"""What the host's owner may write."""

from pathlib import Path

import pytest

from vm_launcher.settings import SettingsError, load_settings

NEEDED = {
    "manager": "https://copilot.example.org",
    "image": "/i",
    "image_key": "/k",
    "enrolment_file": "/e",
    "state": "/s",
}


def test_flags_override_the_file(tmp_path: Path) -> None:
    file = tmp_path / "launcher.toml"
    file.write_text("[vm]\ncpus = 4\nmemory_mib = 1024\n[network]\nallow = ['a.example:443']\n")
    settings = load_settings(file, {**NEEDED, "vm.cpus": 2, "vm.disk_mib": None})
    assert (settings.vm.cpus, settings.vm.memory_mib) == (2, 1024)
    assert settings.network.allow == ("a.example:443",)
    assert settings.vm.allow_emulation


def test_paths_in_the_file_are_relative_to_it(tmp_path: Path) -> None:
    file = tmp_path / "launcher.toml"
    file.write_text("state = 'here'\n")
    settings = load_settings(file, {**NEEDED, "state": None})
    assert settings.state == tmp_path / "here"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("vm.cpus", 0),
        ("vm.memory_mib", 10),
        ("vm.cpu_percent", 101),
        ("vm.colour", "red"),
        ("manager", "ftp://example.org"),
        ("network.bytes_per_second", -1),
    ],
)
def test_a_wrong_value_is_named(field: str, value: object) -> None:
    with pytest.raises(SettingsError) as caught:
        load_settings(None, {**NEEDED, field: value})
    assert [one.field for one in caught.value.errors] == [field]
    assert field in caught.value.message


def test_everything_missing_is_said_at_once() -> None:
    with pytest.raises(SettingsError) as caught:
        load_settings(None, {})
    assert {one.field for one in caught.value.errors} == set(NEEDED)


@pytest.mark.parametrize("text", ["vm = [", "\xff"])
def test_a_file_that_is_no_toml(tmp_path: Path, text: str) -> None:
    file = tmp_path / "launcher.toml"
    file.write_bytes(text.encode("latin-1"))
    with pytest.raises(SettingsError, match="not valid TOML"):
        load_settings(file, NEEDED)
