"""`[copilot1]`: off without it, safe with it, every mistake named."""

import tomllib
from pathlib import Path

import pytest

from copilot_agent.protocol.errors import CopilotError
from job_manager_adapter.cli.manager_config import lines
from job_manager_adapter.settings import Settings, load

SECTION = """[copilot1]
jid = "JM@Copilot.example.org"
password_file = "/etc/copilot/copilot1.password"
host = "xmpp.example.org"
experiments = ["default"]
chirp_root = "/srv/chirp"
chirp_address = "chirp.example.org:9094"
"""


def read(tmp_path: Path, text: str) -> Settings:
    path = tmp_path / "manager.toml"
    path.write_text(text)
    return load(path)


def test_it_is_off_without_the_section() -> None:
    assert load(None).copilot1 is None


def test_a_short_section_is_enough(tmp_path: Path) -> None:
    found = read(tmp_path, SECTION).copilot1
    assert found is not None
    assert (found.jid, found.domain) == ("jm@copilot.example.org", "copilot.example.org")
    assert not found.insecure


def test_what_is_shown_can_be_read_again(tmp_path: Path) -> None:
    settings = read(tmp_path, SECTION)
    text = "\n".join(line for _, line in lines(settings))
    assert Settings.model_validate(tomllib.loads(text)) == settings


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("insecure = true", "server on this computer"),
        ('chirp_subject = "anybody rwlda"', "a subject of Chirp"),
        ('require_file = "../etc/passwd"', "absolute path"),
        ('storage_manager = "nobody"', "an address"),
        ('resource = "a/b"', "a word of letters"),
        ("offer_seconds = 100", "50"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, line: str, words: str) -> None:
    with pytest.raises(CopilotError) as caught:
        read(tmp_path, f"{SECTION}{line}\n")
    (error,) = caught.value.errors
    assert error.field.startswith("copilot1")
    assert words in error.message


def test_experiments_must_exist(tmp_path: Path) -> None:
    with pytest.raises(CopilotError) as caught:
        read(tmp_path, SECTION.replace('["default"]', '["atlas"]'))
    assert "add [experiments.atlas]" in caught.value.errors[0].message


def test_on_this_computer_tls_may_be_missing(tmp_path: Path) -> None:
    text = SECTION.replace("xmpp.example.org", "127.0.0.1") + "insecure = true\n"
    found = read(tmp_path, text).copilot1
    assert found is not None and found.insecure
