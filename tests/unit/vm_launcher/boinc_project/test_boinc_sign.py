"""`vm-launcher boinc-sign`: keys and signatures as the clients want them, and what is refused."""

from pathlib import Path

import pytest

from tests.harness.certificates import Authority
from vm_launcher.boinc_project import PrivateKey, PublicKey, verify_file
from vm_launcher.cli import main

KEY = PrivateKey.generate()


@pytest.fixture
def version(tmp_path: Path) -> Path:
    """An application version of two files."""
    directory = tmp_path / "version"
    directory.mkdir()
    for name in ("version.xml", "launcher", "image"):
        (directory / name).write_text(name)
    return directory


@pytest.fixture
def private(tmp_path: Path) -> Path:
    path = tmp_path / "code_sign_private"
    path.write_text(KEY.text())
    return path


def names(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()}


def test_a_new_key_signs_what_its_public_half_verifies(tmp_path: Path, version: Path) -> None:
    keys = tmp_path / "keys"
    assert main(["boinc-sign", "--new-key", str(keys)]) == 0
    assert (keys / "code_sign_private").stat().st_mode & 0o777 == 0o600
    assert main(["boinc-sign", str(keys / "code_sign_private"), str(version)]) == 0
    public = PublicKey.from_text((keys / "code_sign_public").read_text())
    assert names(version) == {"version.xml", "launcher", "launcher.sig", "image", "image.sig"}
    for name in ("launcher", "image"):
        assert verify_file(version / name, (version / f"{name}.sig").read_text(), public)


@pytest.mark.parametrize("there", ["code_sign_private", "code_sign_public"])
def test_no_key_is_overwritten(
    tmp_path: Path, there: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / there).write_text("precious")
    assert main(["boinc-sign", "--new-key", str(tmp_path)]) == 1
    assert str(tmp_path / there) in capsys.readouterr().err
    assert names(tmp_path) == {there}
    assert (tmp_path / there).read_text() == "precious"


def test_what_is_signed_is_left_alone(
    version: Path, private: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["boinc-sign", str(private), str(version)]) == 0
    signature = (version / "image.sig").read_bytes()
    (version / "launcher.sig").unlink()
    capsys.readouterr()
    assert main(["boinc-sign", str(private), str(version)]) == 0
    said = capsys.readouterr().out
    assert "signed: launcher\n" in said
    assert "signed: image" not in said
    assert (version / "image.sig").read_bytes() == signature


@pytest.mark.parametrize("text", ["", "junk", "00.\n", PrivateKey.generate().sign("0" * 32)])
def test_a_signature_that_does_not_hold_is_named(
    version: Path, private: Path, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (version / "launcher.sig").write_text(text)
    assert main(["boinc-sign", str(private), str(version)]) == 1
    assert "launcher.sig" in capsys.readouterr().err
    assert "image.sig" not in names(version), "all are looked at before one is written"
    assert (version / "launcher.sig").read_text() == text


def test_what_is_no_application_version_is_not_signed(
    version: Path, private: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (version / "version.xml").unlink()
    assert main(["boinc-sign", str(private), str(version)]) == 1
    assert "version.xml" in capsys.readouterr().err
    assert names(version) == {"launcher", "image"}


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("pem", "PEM"), ("public", "code_sign_public"), ("junk", "first line"),
        ("missing", "No such file"),
    ],
)  # fmt: skip
def test_a_wrong_key_is_told_what_it_is(
    tmp_path: Path, version: Path, kind: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    key = tmp_path / "key"
    if kind == "pem":
        key.write_bytes(Authority(tmp_path / "ca").server(tmp_path, "x.example")[1].read_bytes())
    elif kind != "missing":
        key.write_text(KEY.public.text() if kind == "public" else "\xff\x00")
    assert main(["boinc-sign", str(key), str(version)]) == 2
    said = capsys.readouterr().err
    assert f"KEY: {key}" in said
    assert told in said
    assert names(version) == {"version.xml", "launcher", "image"}


@pytest.mark.parametrize("words", [(), ("key",), ("key", "dir", "--new-key", "x")])
def test_the_words_are_one_way_or_the_other(
    words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["boinc-sign", *words]) == 2
    assert "--new-key" in capsys.readouterr().err
