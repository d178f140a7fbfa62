"""Generated pages are current."""

from deploy.docs.__main__ import main
from deploy.docs.reference import page


def test_the_protocol_reference_is_current() -> None:
    assert main(["--check"]) == 0, "run python -m deploy.docs"


def test_the_reference_tells_bounds_and_meaning() -> None:
    text = page()
    assert "| `cores` | integer, 1…256 | `1` |" in text
    assert "| `waiting` | may be claimed |" in text
