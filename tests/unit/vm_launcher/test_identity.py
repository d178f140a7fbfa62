"""The launcher's key and its enrolment secret."""

import base64
import hashlib
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from copilot_agent.protocol.enrolment import enrolment_statement
from vm_launcher.identity import Identity, IdentityError, read_secret

SECRET = "s" * 43
PILOT = "p" * 43


def raw(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def test_the_key_stays_and_is_private(tmp_path: Path) -> None:
    path = tmp_path / "launcher.key"
    first = Identity.load(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert Identity.load(path).public_key == first.public_key


def test_a_pilots_key_is_vouched_for(tmp_path: Path) -> None:
    answer = Identity.load(tmp_path / "key").vouch(SECRET, PILOT)
    key = Ed25519PublicKey.from_public_bytes(raw(answer.launcher_key))
    statement = enrolment_statement(hashlib.sha256(SECRET.encode()).hexdigest(), PILOT)
    key.verify(raw(answer.signature), statement)


def test_a_damaged_key_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "launcher.key"
    path.write_text("damaged")
    with pytest.raises(IdentityError):
        Identity.load(path)
    assert path.read_text() == "damaged"


def test_the_secret_is_the_only_line(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_text(f"{SECRET}\n")
    assert read_secret(path) == SECRET


@pytest.mark.parametrize("text", ["", "short-but-secret", "x" * 5000, "é" * 43, "a b" * 14 + "c"])
def test_a_wrong_secret_is_refused_and_not_repeated(tmp_path: Path, text: str) -> None:
    path = tmp_path / "secret"
    path.write_text(text)
    with pytest.raises(IdentityError) as caught:
        read_secret(path)
    assert str(path) in caught.value.message
    assert not text or text not in caught.value.message


def test_a_missing_secret_says_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(IdentityError) as caught:
        read_secret(tmp_path / "secret")
    assert "copilot-manager enrolment create" in caught.value.remedy
