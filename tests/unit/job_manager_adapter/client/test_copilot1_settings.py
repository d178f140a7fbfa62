"""Where `copilot copilot1` finds its account: flags, then a section of the user's file."""

from pathlib import Path

import pytest

from copilot_agent.protocol.errors import CopilotError
from job_manager_adapter.client.copilot1_settings import load_copilot1_settings
from job_manager_adapter.client.settings import load_settings


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.delenv("COPILOT_TOKEN", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    return tmp_path


def write(path: Path, text: str, mode: int = 0o600) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    path.chmod(mode)
    return path


def test_a_flag_counts_before_the_file(home: Path) -> None:
    text = 'token = "t"\n[copilot1]\njid = "a@old.example"\npassword = "secret"\nnick = "me"\n'
    write(home / "copilot" / "config.toml", text)
    settings = load_copilot1_settings({"jid": "b@new.example", "nick": None})
    assert (settings.jid, settings.nick, settings.secret()) == ("b@new.example", "me", "secret")
    assert settings.address == ("new.example", 5222)
    assert settings.chat_room == "pilots-lounge@conference.new.example"
    assert load_settings().token.get_secret_value() == "t", "other commands do not mind"


@pytest.mark.parametrize(
    ("server", "address"),
    [
        ("xmpp.example:15222", ("xmpp.example", 15222)),
        ("xmpp.example", ("xmpp.example", 5222)),
        ("[::1]", ("::1", 5222)),
        ("[::1]:15222", ("::1", 15222)),
    ],
)
def test_servers(server: str, address: tuple[str, int]) -> None:
    settings = load_copilot1_settings({"jid": "a@b.example", "password": "x", "server": server})
    assert settings.address == address


def test_a_password_that_others_can_read_is_refused(home: Path) -> None:
    file = write(home / "password", "secret\n", 0o644)
    settings = load_copilot1_settings({"jid": "a@b.example", "password_file": file})
    with pytest.raises(CopilotError) as caught:
        settings.secret()
    assert f"chmod 600 {file}" in caught.value.remedy
    file.chmod(0o600)
    assert settings.secret() == "secret"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("jid", "nobody"),
        ("jid", "a@b/c"),
        ("room", "lounge"),
        ("nick", "a/b"),
        ("server", "https://b.example"),
        ("seconds", 1),
    ],
)
def test_what_is_wrong_is_named(field: str, value: object) -> None:
    with pytest.raises(CopilotError) as caught:
        load_copilot1_settings({"jid": "a@b.example", "password": "x", field: value})
    assert [error.field for error in caught.value.errors] == [field]


def test_a_password_is_needed() -> None:
    with pytest.raises(CopilotError) as caught:
        load_copilot1_settings({"jid": "a@b.example"})
    assert "--password-file" in caught.value.errors[0].message
