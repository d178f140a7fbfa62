"""Settings: sane without a file, and every mistake named."""

import tomllib
from pathlib import Path

import pytest

from copilot_agent.protocol.errors import CopilotError
from job_manager_adapter.cli.manager_config import lines
from job_manager_adapter.settings import Settings, load


def errors(tmp_path: Path, text: str) -> dict[str, str]:
    path = tmp_path / "manager.toml"
    path.write_text(text)
    with pytest.raises(CopilotError) as caught:
        load(path)
    return {item.field: item.message for item in caught.value.errors}


def test_no_file_is_needed() -> None:
    settings = load(None)
    assert settings.server.loopback
    assert "default" in settings.experiments


@pytest.mark.parametrize("listen", ["0.0.0.0", "::", "192.0.2.1"])  # noqa: S104
def test_other_addresses_need_tls_or_a_proxy(tmp_path: Path, listen: str) -> None:
    found = errors(tmp_path, f'[server]\nlisten = "{listen}"\n')
    assert "behind_proxy" in found["server"]
    assert load(None, {"server.listen": listen, "server.behind_proxy": True})
    tls = {"server.tls_cert": "a.pem", "server.tls_key": "a.key"}
    assert load(None, {"server.listen": listen, **tls})


def test_a_certificate_needs_its_key(tmp_path: Path) -> None:
    assert "both" in errors(tmp_path, '[server]\ntls_cert = "a.pem"\n')["server"]


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("[server]\nprot = 1\n", "server.prot"),
        ("[server]\nport = 70000\n", "server.port"),
        ('[server]\nlisten = "example.org"\n', "server.listen"),
        ("[policy]\nlease_seconds = 10\n", "policy"),
        ('[experiments.Demo]\nadapter = "queue"\n', "experiments.Demo"),
        ('[experiments.demo]\nadaptor = "queue"\n', "experiments.demo.adaptor"),
        ("[limits]\nfree_space_mib = -1\n", "limits.free_space_mib"),
        ('[store]\nurl = "mysql://me@db/x"\n', "store.url"),
        ('[store]\nurl = "postgresql://me@db"\n', "store.url"),
        ('[store]\nurl = "postgresql:/me:secret@db/x"\n', "store.url"),
    ],
)
def test_a_mistake_is_named(tmp_path: Path, text: str, field: str) -> None:
    assert errors(tmp_path, text)[field]


def test_broken_toml_and_no_file_have_a_remedy(tmp_path: Path) -> None:
    path = tmp_path / "manager.toml"
    for text in (None, "[server\n"):
        if text:
            path.write_text(text)
        with pytest.raises(CopilotError) as caught:
            load(path)
        assert str(path) in caught.value.message
        assert caught.value.remedy


def test_what_is_shown_can_be_read_back(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path)
    text = "\n".join(line for _, line in lines(settings))
    assert Settings.model_validate(tomllib.loads(text)) == settings
