"""How the command for original managers is called, and what it says to who calls it wrongly."""

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from copilot_agent.cli import main


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    """The command sets up logging for its whole process."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def words(folder: Path, **other: str) -> list[str]:
    password = folder / "password"
    password.touch(mode=0o600)
    password.write_text("secret\n")
    options = {
        "jid": "agent@copilot.test",
        "password-file": str(password),
        "server": "127.0.0.1:1",
        "managers": "jm@copilot.test",
        "state": str(folder / "state"),
    }
    found = ["copilot1"]
    for name, value in (options | other).items():
        found += [f"--{name}", value]
    return found


@pytest.mark.parametrize(
    ("option", "value", "says"),
    [
        ("jid", "agent", "no account such as"),
        ("jid", "agent@x/resource", "no account such as"),
        ("managers", "jm@x/alpha", "no account such as"),
        ("server", "copilot.test", "no HOST:PORT"),
        ("server", "copilot.test:99999", "no HOST:PORT"),
        ("resource", "a/b", "letters, digits"),
        ("room", "lounge@conference.x", "no room@"),
        ("run-seconds", "0", "between 1 and 2592000"),
        ("run-seconds", "x", "--run-seconds"),
    ],
)
def test_a_wrong_option_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str, value: str, says: str
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(words(tmp_path, **{option: value}))
    assert caught.value.code == 2
    said = capsys.readouterr().err
    assert f"argument --{option}" in said
    assert says in said


def test_a_password_that_is_not_there_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words(tmp_path, **{"password-file": str(tmp_path / "none")})) == 2
    assert "--password-file: cannot be read" in capsys.readouterr().err
    (tmp_path / "empty").touch()
    assert main(words(tmp_path, **{"password-file": str(tmp_path / "empty")})) == 2
    assert "is empty" in capsys.readouterr().err


def test_help_has_examples_and_says_what_accounts_are_needed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        main(["copilot1", "--help"])
    said = capsys.readouterr().out
    assert "--managers jm@copilot.example.org" in said
    assert "an account of its own" in said
    assert "--hurry" not in said
