"""`vm-launcher image verify`: exit codes and words."""

from pathlib import Path

import pytest

from tests.unit.vm_launcher.images.conftest import SmallImage
from vm_launcher.cli import main
from vm_launcher.images.signing import public_pem


def verify(image: SmallImage, home: Path, **changes: object) -> int:
    image.manifest |= {"expires": "2100-01-01T00:00:00Z", **changes}
    image.write()
    key = home / "key.pub"
    key.write_bytes(public_pem(image.key.public_key()))
    words = ["--image-key", str(key), "--state", str(home / "state")]
    return main(["image", "verify", str(image.directory), *words])


def test_an_older_image_is_refused(
    image: SmallImage, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert verify(image, tmp_path) == 0
    assert "good: serial 5" in capsys.readouterr().out
    assert verify(image, tmp_path, serial=4) == 3
    said = capsys.readouterr()
    assert said.out == ""
    assert "serial 4" in said.err
    assert "try: " in said.err


def test_a_tampered_layer_is_refused(
    image: SmallImage, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (image.directory / "agent").write_bytes(b"evil")
    assert verify(image, tmp_path) == 3
    assert "agent" in capsys.readouterr().err
