"""A demo's own place for temporary files, in which nothing may be left."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def temporary() -> Iterator[Path]:
    """Short enough for sockets."""
    with tempfile.TemporaryDirectory(prefix="e2e-") as name:
        Path(name).chmod(0o711)  # Prosody runs as a user of its own
        yield Path(name)
