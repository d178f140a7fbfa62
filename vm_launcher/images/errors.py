"""What can be wrong with an image."""

from __future__ import annotations

from typing import Literal

ImageErrorCode = Literal[
    "image_missing", "image_signature", "image_expired", "image_tampered", "image_rollback"
]


class ImageError(Exception):
    """An image may not be booted; `code` is stable, `remedy` is for the volunteer."""

    def __init__(self, code: ImageErrorCode, message: str, remedy: str) -> None:
        super().__init__(f"{message} ({remedy})")
        self.code: ImageErrorCode = code
        self.message = message
        self.remedy = remedy
