from __future__ import annotations

from pathlib import Path

import pytest

from deploy.setup.machine import carried_environment, pip_settings


def test_pip_settings_drop_what_lies_on_this_disk(tmp_path: Path) -> None:
    conf = tmp_path / "pip.conf"
    conf.write_text(
        "[global]\nfind-links = /opt/wheels\ntimeout = 60\n"
        "extra-index-url = file:///opt/simple\n    https://index.example/simple\n"
    )
    kept = dict(pip_settings([conf, tmp_path / "absent"]).items("global"))
    assert kept == {"timeout": "60", "extra-index-url": "https://index.example/simple"}


def test_environment_carries_paths_only_if_they_exist_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/ca.crt").touch()
    monkeypatch.setenv("PIP_CERT", "/etc/ca.crt")
    monkeypatch.setenv("SSL_CERT_FILE", "/etc/another.crt")
    monkeypatch.setenv("https_proxy", "http://proxy.example:3128")
    monkeypatch.setenv("SECRET_TOKEN", "no business of the bare system")
    kept = carried_environment(tmp_path)
    assert kept["PIP_CERT"] == "/etc/ca.crt"
    assert kept["https_proxy"] == "http://proxy.example:3128"
    assert not {"SSL_CERT_FILE", "SECRET_TOKEN"} & set(kept)
