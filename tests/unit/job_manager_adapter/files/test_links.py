"""A signed link opens exactly what it was made for, until it expires."""

from urllib.parse import parse_qsl, urlsplit

import pytest

from copilot_agent.protocol.errors import CopilotError, ErrorCode
from job_manager_adapter.files.links import READ, WRITE, LinkSigner

NOW = 1_800_000_000.0
PATH = "/files/v1/outputs/j-00000000000000000000/1/mass.txt"


@pytest.fixture
def signer() -> LinkSigner:
    return LinkSigner(b"k" * 32)


def link(signer: LinkSigner) -> tuple[str, dict[str, str]]:
    parts = urlsplit(signer.sign(WRITE, PATH, NOW + 60, max_bytes=1000, experiment="demo"))
    return parts.path, dict(parse_qsl(parts.query))


def refused(signer: LinkSigner, kind: str, path: str, query: dict[str, str], now: float) -> str:
    with pytest.raises(CopilotError) as caught:
        signer.check(kind, path, query, now)
    assert caught.value.remedy
    return caught.value.code


def test_a_link_is_good_until_its_end(signer: LinkSigner) -> None:
    path, query = link(signer)
    signer.check(WRITE, path, query, NOW + 60)
    assert refused(signer, WRITE, path, query, NOW + 61) == ErrorCode.LINK_EXPIRED


@pytest.mark.parametrize(
    ("name", "value"),
    [("e", "1800009999"), ("m", "1000000"), ("x", "other"), ("s", "A" * 43), ("s", "é")],
)
def test_no_field_can_be_changed(signer: LinkSigner, name: str, value: str) -> None:
    path, query = link(signer)
    assert refused(signer, WRITE, path, query | {name: value}, NOW) == ErrorCode.LINK_INVALID


@pytest.mark.parametrize("name", ["e", "m", "x", "s"])
def test_no_field_can_be_left_out(signer: LinkSigner, name: str) -> None:
    path, query = link(signer)
    del query[name]
    assert refused(signer, WRITE, path, query, NOW) == ErrorCode.LINK_INVALID


def test_a_link_is_for_one_path_and_one_kind_of_method(signer: LinkSigner) -> None:
    path, query = link(signer)
    assert refused(signer, READ, path, query, NOW) == ErrorCode.LINK_INVALID
    assert refused(signer, WRITE, path + "2", query, NOW) == ErrorCode.LINK_INVALID


def test_another_managers_link_is_worth_nothing(signer: LinkSigner) -> None:
    path, query = link(LinkSigner(b"x" * 32))
    assert refused(signer, WRITE, path, query, NOW) == ErrorCode.LINK_INVALID
