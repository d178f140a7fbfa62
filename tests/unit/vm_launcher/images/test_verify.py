"""An image boots only if it is signed, current, whole and not older than the last one."""

from __future__ import annotations

import datetime as dt
import lzma
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.unit.vm_launcher.images.conftest import NOW, ROLES, SmallImage, digest
from vm_launcher.images import Image, ImageError, load_image, read_public_key
from vm_launcher.images.signing import public_pem


def load(image: SmallImage, tmp_path: Path, now: dt.datetime = NOW, **changes: Any) -> Image:
    options: dict[str, Any] = {
        "trusted_keys": [image.key.public_key()],
        "state": tmp_path / "state",
    }
    return load_image(image.directory, now=now, **(options | changes))


def refused(image: SmallImage, tmp_path: Path, **changes: Any) -> ImageError:
    with pytest.raises(ImageError) as caught:
        load(image, tmp_path, **changes)
    assert caught.value.remedy
    return caught.value


def test_a_good_image_gives_unpacked_absolute_paths(image: SmallImage, tmp_path: Path) -> None:
    loaded = load(image, tmp_path)
    for role in ROLES:
        path = getattr(loaded, role)
        assert path.is_absolute()
        assert path.read_bytes() == image.plain(role)
    assert loaded.sha256 == digest((image.directory / "manifest.json").read_bytes())
    assert loaded.command_line == "console=ttyS0"


def test_another_signer_is_refused(image: SmallImage, tmp_path: Path) -> None:
    other = Ed25519PrivateKey.generate().public_key()
    assert refused(image, tmp_path, trusted_keys=[other]).code == "image_signature"


def test_a_changed_manifest_is_refused(image: SmallImage, tmp_path: Path) -> None:
    path = image.directory / "manifest.json"
    path.write_bytes(path.read_bytes().replace(b"console=ttyS0", b"console=ttyS1"))
    assert refused(image, tmp_path).code == "image_signature"


@pytest.mark.parametrize("text", [b"", b"{}", b'{"key_id":"0","signature":"x"}', b"\xff" * 50])
def test_a_broken_signature_file_is_refused(image: SmallImage, tmp_path: Path, text: bytes) -> None:
    (image.directory / "manifest.json.sig").write_bytes(text)
    assert refused(image, tmp_path).code == "image_signature"


def test_an_expired_image_is_refused(image: SmallImage, tmp_path: Path) -> None:
    late = dt.datetime(2027, 1, 1, tzinfo=dt.UTC)
    assert refused(image, tmp_path, now=late).code == "image_expired"
    load(image, tmp_path, now=late - dt.timedelta(seconds=1))


def test_a_lower_serial_is_refused_after_a_higher_one(image: SmallImage, tmp_path: Path) -> None:
    load(image, tmp_path)
    image.manifest["serial"] = 4
    error = refused(image.write(), tmp_path)
    assert error.code == "image_rollback"
    assert "4" in error.message
    assert "5" in error.message


def test_a_refused_image_does_not_raise_the_serial(image: SmallImage, tmp_path: Path) -> None:
    newer = SmallImage(tmp_path / "newer", key=image.key).make(serial=9)
    (newer.directory / "agent").write_bytes(b"x")
    assert refused(newer, tmp_path).code == "image_tampered"
    load(image, tmp_path)


def test_a_damaged_serial_file_is_not_guessed(image: SmallImage, tmp_path: Path) -> None:
    load(image, tmp_path)
    (tmp_path / "state" / "image-serial").write_text("five")
    assert refused(image, tmp_path).code == "image_rollback"


@pytest.mark.parametrize("file", ["kernel.xz", "initrd", "base.xz", "agent"])
def test_one_flipped_byte_in_any_layer_is_refused(
    image: SmallImage, tmp_path: Path, file: str
) -> None:
    path = image.directory / file
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    error = refused(image, tmp_path)
    assert error.code == "image_tampered"
    assert file in error.message


def test_layers_are_checked_at_every_boot(image: SmallImage, tmp_path: Path) -> None:
    load(image, tmp_path)
    (image.directory / "agent").write_bytes(b"other")
    assert refused(image, tmp_path).code == "image_tampered"


def test_a_spoilt_unpacked_copy_is_unpacked_again(image: SmallImage, tmp_path: Path) -> None:
    kernel = load(image, tmp_path).kernel
    kernel.write_bytes(b"spoilt")
    assert load(image, tmp_path).kernel.read_bytes() == image.plain("kernel")


def test_the_builders_unpacked_copy_is_taken_if_it_is_right(
    image: SmallImage, tmp_path: Path
) -> None:
    copy = image.directory / "unpacked" / digest(image.plain("base"))
    copy.parent.mkdir()
    copy.write_bytes(image.plain("base"))
    assert load(image, tmp_path).base == copy
    copy.write_bytes(image.plain("base").replace(b"the", b"bad"))
    assert load(image, tmp_path).base.read_bytes() == image.plain("base")


def only_unpacked(image: SmallImage) -> None:
    """As in a BOINC task's slot: links to copies, and no packed layer."""
    copies = image.directory / "unpacked"
    copies.mkdir()
    for role in ("kernel", "base"):
        (image.directory / f"{role}.xz").unlink()
        (image.directory.parent / role).write_bytes(image.plain(role))
        (copies / digest(image.plain(role))).symlink_to(image.directory.parent / role)


def test_a_good_unpacked_copy_is_enough(image: SmallImage, tmp_path: Path) -> None:
    only_unpacked(image)
    loaded = load(image, tmp_path)
    assert [getattr(loaded, role).read_bytes() for role in ROLES] == [
        image.plain(role) for role in ROLES
    ]
    assert not (tmp_path / "state" / "image-cache").exists(), "nothing is unpacked"


def test_a_bad_unpacked_copy_alone_is_refused(image: SmallImage, tmp_path: Path) -> None:
    only_unpacked(image)
    (tmp_path / "base").write_bytes(image.plain("base").replace(b"the", b"bad"))
    error = refused(image, tmp_path)
    assert error.code == "image_tampered"
    assert "base" in error.message


def test_a_layer_that_unpacks_to_more_than_signed_is_refused(
    image: SmallImage, tmp_path: Path
) -> None:
    bomb = lzma.compress(bytes(10_000_000))
    (image.directory / "kernel.xz").write_bytes(bomb)
    image.manifest["layers"][0] |= {"sha256": digest(bomb), "size": len(bomb)}
    assert refused(image.write(), tmp_path).code == "image_tampered"
    assert not list((tmp_path / "state").rglob(".part-*"))


@pytest.mark.parametrize("file", ["manifest.json", "manifest.json.sig", "initrd"])
def test_a_missing_file_is_named(image: SmallImage, tmp_path: Path, file: str) -> None:
    (image.directory / file).unlink()
    error = refused(image, tmp_path)
    assert error.code == "image_missing"
    assert file in error.message


@pytest.mark.parametrize(
    "change",
    [
        {"file": "../agent"}, {"file": "/etc/passwd"}, {"file": ".hidden"}, {"size": 1 << 40},
        {"size": 0}, {"role": "extra"}, {"packing": "xz"}, {"unknown": 1},
    ],
)  # fmt: skip
def test_hostile_layers_are_refused_even_if_signed(
    image: SmallImage, tmp_path: Path, change: dict[str, Any]
) -> None:
    image.manifest["layers"][3] |= change
    assert refused(image.write(), tmp_path).code == "image_tampered"


def test_two_layers_of_one_role_are_refused(image: SmallImage, tmp_path: Path) -> None:
    image.manifest["layers"][1]["role"] = "agent"
    assert refused(image.write(), tmp_path).code == "image_tampered"


def test_a_huge_manifest_is_refused(image: SmallImage, tmp_path: Path) -> None:
    (image.directory / "manifest.json").write_bytes(b" " * (2 << 20))
    assert refused(image, tmp_path).code == "image_tampered"


def test_a_key_file_is_read_back(image: SmallImage, tmp_path: Path) -> None:
    path = tmp_path / "image-key.pub"
    path.write_bytes(public_pem(image.key.public_key()))
    load(image, tmp_path, trusted_keys=[read_public_key(path)])
    path.write_text("nonsense")
    with pytest.raises(ImageError, match="not a public key"):
        read_public_key(path)
