"""Checks of what comes from elsewhere: the image and the manager."""

import tempfile
import urllib.error
import urllib.request
from datetime import UTC, datetime
from pathlib import Path
from typing import ClassVar

from vm_launcher.doctor.base import Finding, Level, Question
from vm_launcher.images import ImageError, load_image, read_public_key

_MANAGER_SECONDS = 5.0


class ImageCheck:
    """Signature, expiry, every layer. Takes a second."""

    name: ClassVar[str] = "image"

    def look(self, question: Question) -> Finding | None:
        if question.image is None:
            return None
        if question.image_key is None:
            text = "not checked: no --image-key was named"
            return Finding(self.name, Level.WARN, text, "name the public key of the image's makers")
        try:
            return self._load(question.image, question.image_key)
        except ImageError as error:
            return Finding(self.name, Level.FAIL, error.message, error.remedy)

    def _load(self, directory: Path, key: Path) -> Finding:
        with tempfile.TemporaryDirectory(prefix="vm-launcher-doctor-") as scratch:
            image = load_image(
                directory,
                trusted_keys=[read_public_key(key)],
                now=datetime.now(UTC),
                state=Path(scratch),
            )
        expires = f"{image.manifest.expires:%Y-%m-%d}"
        text = f"serial {image.manifest.serial}, good until {expires}, sha256 {image.sha256}"
        return Finding(self.name, Level.OK, text)


class ManagerReachable:
    name: ClassVar[str] = "manager"

    def look(self, question: Question) -> Finding | None:
        if question.manager is None:
            return None
        url = question.manager.rstrip("/") + "/livez"
        if not url.startswith(("http://", "https://")):
            return Finding(self.name, Level.FAIL, f"{question.manager!r} is no http(s) URL")
        try:
            with urllib.request.urlopen(url, timeout=_MANAGER_SECONDS):  # noqa: S310 - http(s) only
                return Finding(self.name, Level.OK, f"{question.manager} answers")
        except urllib.error.HTTPError as error:
            text = f"{question.manager} answers with status {error.code}"
            return Finding(self.name, Level.WARN, text, "ask the manager's operator")
        except (OSError, ValueError) as error:
            remedy = "check the address, the network and the proxy; is the manager running?"
            return Finding(self.name, Level.FAIL, f"{question.manager}: {error}", remedy)
