"""Code signing: what BOINC's own library reads, signs and accepts, and the other way round."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.harness.boinc.crypt_library import CryptLibrary
from vm_launcher.boinc_project.signing import (
    PrivateKey,
    PublicKey,
    SigningError,
    md5,
    sign_file,
    sign_text,
    verify_file,
    verify_text,
)

KEY = PrivateKey.generate()
OTHER = PrivateKey.generate()


@pytest.fixture
def program(tmp_path: Path) -> Path:
    path = tmp_path / "launcher"
    path.write_bytes(b"\x7fELF and more" * 1000)
    return path


@pytest.fixture(scope="module")
def library() -> CryptLibrary:
    return CryptLibrary()


def test_keys_survive_being_written_and_read() -> None:
    assert PrivateKey.from_text(KEY.text()) == KEY
    assert PublicKey.from_text(KEY.public.text()) == KEY.public


def test_a_key_file_has_the_length_then_lines_of_64_digits_then_a_dot() -> None:
    first, *lines, dot = KEY.public.text().splitlines()
    assert first == "1024"
    assert {len(line) for line in lines} == {64}
    assert dot == "."


def test_a_signature_holds_for_its_file_and_its_key_only(program: Path) -> None:
    signature = sign_file(program, KEY)
    assert verify_file(program, signature, KEY.public)
    assert not verify_file(program, signature, OTHER.public)
    program.write_bytes(program.read_bytes() + b"!")
    assert not verify_file(program, signature, KEY.public)


def test_a_signed_text_holds_for_that_text_only() -> None:
    signature = sign_text("<name>out</name>", KEY)
    assert verify_text("<name>out</name>", signature, KEY.public)
    assert not verify_text("<name>in</name>", signature, KEY.public)


@pytest.mark.parametrize("signature", ["", ".", "zz.", "00.\n", "ff" * 128 + ".", "f" * 100_000])
def test_no_nonsense_is_a_signature(program: Path, signature: str) -> None:
    assert not verify_file(program, signature, KEY.public)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1024",
        "1024\n.\n",
        "0\n00.\n",
        "2048\n" + KEY.text().partition("\n")[2],
        KEY.public.text(),
        KEY.text().replace("a", "b"),
        KEY.text()[:-3],
        "1024\nxyz.\n",
        f"1024\n{'00' * (3 * 128 + 5 * 64)}.\n",
        "²\n00.\n",
        "9" * 5000 + "\n00.\n",
    ],
)
def test_what_is_no_private_key_is_refused_with_a_remedy(text: str) -> None:
    with pytest.raises(SigningError) as caught:
        PrivateKey.from_text(text)
    assert caught.value.remedy


def test_a_private_key_is_no_public_one_and_shows_nothing_of_itself() -> None:
    with pytest.raises(SigningError):
        PublicKey.from_text(KEY.text())
    assert str(KEY.numbers[0]) not in repr(KEY)


def test_boincs_library_accepts_our_signature_and_no_other(
    program: Path, library: CryptLibrary
) -> None:
    signature = sign_file(program, KEY)
    assert library.accepts(md5(program), signature, KEY.public.text())
    assert not library.accepts(md5(program), signature, OTHER.public.text())
    assert not library.accepts("0" * 32, signature, KEY.public.text())


def test_boincs_library_signs_with_our_key_file_as_we_do(
    program: Path, library: CryptLibrary, tmp_path: Path
) -> None:
    key_file = tmp_path / "code_sign_private"
    key_file.write_text(KEY.text())
    assert library.sign(program, key_file) == sign_file(program, KEY)
