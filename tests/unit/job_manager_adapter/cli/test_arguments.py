"""The `copilot` command line: flags, files and what a terminal is spared."""

from pathlib import Path

import pytest

from copilot_agent.protocol.errors import CopilotError
from job_manager_adapter.cli.main import main, parse
from job_manager_adapter.cli.output import printable, size
from job_manager_adapter.cli.submit import prepare
from job_manager_adapter.cli.times import duration


def test_flags_alone_make_a_job() -> None:
    line = "job submit --experiment demo --cores 2 --memory 300 --sweep seed=1,2 --env A=b"
    args = parse([*line.split(), "--", "run", "--seed", "{seed}", "--", "-x"])
    specs = prepare(args).specs
    assert [spec.command for spec in specs] == [
        ("run", "--seed", "1", "--", "-x"),
        ("run", "--seed", "2", "--", "-x"),
    ]
    assert specs[0].requirements.cores == 2
    assert specs[0].requirements.memory_mib == 300
    assert specs[0].environment == {"A": "b"}


def test_flags_override_the_file(tmp_path: Path) -> None:
    file = tmp_path / "job.toml"
    file.write_text('experiment = "demo"\nname = "a"\ncommand = ["x"]\n[requirements]\ncores = 4\n')
    args = parse(["job", "submit", "--name", "b", str(file), "--memory", "99", "--wait"])
    spec = prepare(args).specs[0]
    assert (spec.name, spec.requirements.cores, spec.requirements.memory_mib) == ("b", 4, 99)


def test_local_input_gets_the_given_name(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text("pass")
    args = parse(["job", "submit", "--experiment", "demo", f"--input=run.py={script}", "--", "x"])
    assert [file.name for file in prepare(args).specs[0].inputs] == ["run.py"]


@pytest.mark.parametrize("place", [0, 2, 4])
def test_output_mode_may_stand_anywhere(place: int) -> None:
    words = ["job", "list", "--limit", "3"]
    words[place:place] = ["--output", "json"]
    args = parse(words)
    assert (args.output, args.limit) == ("json", 3)


def test_malformed_pair_is_named() -> None:
    with pytest.raises(CopilotError, match="'seed'"):
        prepare(parse(["job", "submit", "--sweep", "seed", "--", "x"]))


def test_slip_in_a_variable_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    line = "job submit --experiment demo --sweep seed=1 -- sh -c"
    prepare(parse([*line.split(), "run {seeed} {seed} ${HOME}"]))
    assert capsys.readouterr().err == "warning: {seeed} stays as it is; known are {seed}\n"


@pytest.mark.parametrize("text", ["nope", "p-01m83d2mtjecnwwa4kfa", "j-01m83d2mtjecnwwa4kf"])
def test_slip_in_an_id_is_told_before_the_manager_is_asked(
    text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["job", "show", text])
    assert ended.value.code == 2
    assert f"{text!r} is no job's id" in capsys.readouterr().err


def test_forgotten_dashes_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(["job", "submit", "--experiment", "demo", "/bin/echo", "hi"])
    assert "arguments: hi; a job's command goes after --" in capsys.readouterr().err


def test_what_cannot_be_read_is_named_without_a_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "copilot" / "config.toml").mkdir(parents=True, mode=0o700)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert main(["whoami"]) == 1
    assert "config.toml: Is a directory" in capsys.readouterr().err.replace("\n", "")


def test_missing_job_file_is_named_once(tmp_path: Path) -> None:
    with pytest.raises(CopilotError) as refused:
        prepare(parse(["job", "submit", str(tmp_path / "no.toml")]))
    assert refused.value.message == f"{tmp_path}/no.toml cannot be read: No such file or directory"


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("30m", 1800), ("2h", 7200), ("1d", 86400)]
)
def test_durations(text: str, seconds: float) -> None:
    assert duration(text) == seconds


def test_terminals_do_not_obey_a_payload() -> None:
    assert printable("a\x1b[2Jb\x07\u202ec\n") == "a\\x1b[2Jb\\x07\\u202ec\n"


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (1536, "1.5 KiB"), (3 << 40, "3072.0 GiB")]
)
def test_sizes(count: int, text: str) -> None:
    assert size(count) == text


def test_help_shows_examples(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["job", "submit", "--help"])
    assert "examples:" in capsys.readouterr().out


def test_an_unreachable_manager_is_said_in_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("job_manager_adapter.client.http.backoff", lambda _tried: 0.0)
    assert main(["--url", "http://127.0.0.1:9", "--token", "t", "whoami"]) == 1
    complaint = capsys.readouterr().err
    assert "no answer from http://127.0.0.1:9" in complaint
    assert "copilot-manager serve" in complaint
