"""The XMPP servers' templates and what their READMEs tell an operator to fill in."""

import re
from pathlib import Path
from string import Template

import pytest

TEMPLATES = {
    "prosody": ("prosody.cfg.lua", "copilot1.cfg.lua"),
    "ejabberd": ("ejabberd.yml", "ejabberdctl.cfg"),
}


def wanted(folder: Path, names: tuple[str, ...]) -> set[str]:
    return {
        name for file in names for name in Template((folder / file).read_text()).get_identifiers()
    }


@pytest.mark.parametrize("server", TEMPLATES)
def test_every_name_is_explained_and_filled_in(repository: Path, server: str) -> None:
    folder = repository / "deploy" / server
    readme = (folder / "README.md").read_text()
    names = wanted(folder, TEMPLATES[server])
    rows = re.findall(r"^\| (`[A-Z0-9_`, ]+`) \|", readme, re.MULTILINE)
    assert set(re.findall(r"[A-Z0-9_]+", " ".join(rows))) == names
    assert {name for name in names if not re.search(rf"\b{name}=", readme)} == set()
