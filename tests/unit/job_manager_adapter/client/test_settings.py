"""Where the client finds the manager and its token."""

from pathlib import Path

import pytest

from copilot_agent.protocol.errors import CopilotError
from job_manager_adapter.client.settings import DEFAULT_URL, load_settings


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.delenv("COPILOT_URL", raising=False)
    monkeypatch.delenv("COPILOT_TOKEN", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    return tmp_path


def write(directory: Path, mode: int) -> None:
    path = directory / "copilot" / "config.toml"
    path.parent.mkdir()
    path.write_text('url = "https://manager.example"\ntoken = "from-file"\n')
    path.chmod(mode)


def test_no_token_says_where_one_may_be_given() -> None:
    with pytest.raises(CopilotError) as caught:
        load_settings()
    assert "COPILOT_TOKEN" in caught.value.remedy


def test_flag_beats_environment_beats_file(clean: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(clean, 0o600)
    assert load_settings().token.get_secret_value() == "from-file"
    monkeypatch.setenv("COPILOT_TOKEN", "from-environment")
    assert load_settings().token.get_secret_value() == "from-environment"
    settings = load_settings(token="from-flag")
    assert settings.token.get_secret_value() == "from-flag"
    assert settings.url == "https://manager.example"


def test_default_url() -> None:
    assert load_settings(token="t").url == DEFAULT_URL


def test_a_token_file_that_others_can_read_is_refused(clean: Path) -> None:
    write(clean, 0o644)
    with pytest.raises(CopilotError) as caught:
        load_settings()
    assert "chmod 600" in caught.value.remedy


def test_the_token_does_not_show_in_messages() -> None:
    assert "secret" not in repr(load_settings(token="secret"))
