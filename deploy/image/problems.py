"""What can go wrong in a build, said with its remedy."""

from __future__ import annotations


class BuildError(Exception):
    """A build cannot go on; `remedy` says what the reader can do."""

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(message)
        self.remedy = remedy
