"""The single file is the same from the same, and made anew from anything else."""

import os
import subprocess
from pathlib import Path

import pytest

from deploy.launcher import build
from deploy.launcher.bundle import bundle

HEADER = Path(build.__file__).with_name("header.sh")


def program(directory: Path, text: str) -> Path:
    """A directory with a program in the launcher's place."""
    (directory / "lib").mkdir(parents=True)
    (directory / "lib" / "data").write_text("data")
    (directory / "lib" / "other").symlink_to("data")
    main = directory / "vm-launcher"
    main.write_text(text)
    main.chmod(0o755)
    return directory


def test_a_bundle_is_the_same_wherever_and_whenever_it_is_made(tmp_path: Path) -> None:
    for name, moment in (("one", 1_000_000), ("two", 2_000_000)):
        directory = program(tmp_path / name / "in", "#!/bin/sh\n")
        for path in directory.rglob("*"):
            os.utime(path, (moment, moment))
        bundle(directory, HEADER, tmp_path / name / "out")
    assert (tmp_path / "one/out").read_bytes() == (tmp_path / "two/out").read_bytes()


def test_the_program_gets_words_files_and_process_of_the_file(tmp_path: Path) -> None:
    text = '#!/bin/sh\ncat "$(dirname "$0")/lib/other"\necho " $$: $*"\n'
    bundle(program(tmp_path / "in", text), HEADER, tmp_path / "out")
    slot = tmp_path / "a slot; $HOME"
    slot.mkdir()
    child = subprocess.Popen(
        [tmp_path / "out", "two words", "*"], cwd=slot, stdout=subprocess.PIPE, text=True
    )
    said, _ = child.communicate(timeout=20)
    assert said == f"data {child.pid}: two words *\n"
    (left,) = slot.iterdir()
    assert left.stat().st_mode & 0o077 == 0, "nobody else's business"


def test_where_no_program_may_be_started_nothing_is_left(tmp_path: Path) -> None:
    """As on a file system that is mounted noexec."""
    directory = program(tmp_path / "in", "#!/bin/sh\n")
    (directory / "vm-launcher").chmod(0o644)
    bundle(directory, HEADER, tmp_path / "out")
    slot = tmp_path / "slot"
    slot.mkdir()
    subprocess.run([tmp_path / "out", "boinc-task"], cwd=slot, check=True, timeout=20)
    (left,) = slot.iterdir()
    assert left.name == "boinc_temporary_exit"
    assert "noexec" in left.read_text()


@pytest.mark.parametrize("word", ["--version", "boinc-task"])
def test_where_nothing_can_be_written_it_says_where_to_go(tmp_path: Path, word: str) -> None:
    bundle(program(tmp_path / "in", "#!/bin/sh\n"), HEADER, tmp_path / "out")
    done = subprocess.run(
        [tmp_path / "out", word], cwd="/proc", capture_output=True, text=True, timeout=20
    )  # there root cannot write either
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("vm-launcher: cannot write to /proc")
    assert "go to a directory that you can write to (1 MB are needed)" in line


def test_a_file_that_was_cut_says_so_in_one_line(tmp_path: Path) -> None:
    bundle(program(tmp_path / "in", "#!/bin/sh\n"), HEADER, tmp_path / "out")
    (tmp_path / "out").write_bytes((tmp_path / "out").read_bytes()[:-100])
    slot = tmp_path / "slot"
    slot.mkdir()
    done = subprocess.run(
        [tmp_path / "out", "--version"], cwd=slot, capture_output=True, text=True, timeout=20
    )
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "does not unpack" in line
    assert list(slot.iterdir()) == []


def test_what_others_have_put_there_is_not_followed(tmp_path: Path) -> None:
    bundle(program(tmp_path / "in", "#!/bin/sh\n"), HEADER, tmp_path / "out")
    slot, precious = tmp_path / "slot", tmp_path / "precious"
    for made in (slot, precious, slot / ".vm-launcher-1 2-\n3"):
        made.mkdir()
    (precious / "file").touch()
    (slot / ".vm-launcher-99999999-5").symlink_to(precious)
    (slot / ".vm-launcher-1 2-\n3" / "link").symlink_to(precious)
    subprocess.run([tmp_path / "out"], cwd=slot, check=True, timeout=20)
    assert (precious / "file").exists()
    (left,) = slot.iterdir()
    assert (left / "vm-launcher").exists()


def test_a_change_of_any_source_is_seen(tmp_path: Path) -> None:
    for name in ("vm_launcher", "copilot_agent/protocol", "deploy/launcher", "requirements"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("copilot_agent/__init__.py", "pyproject.toml", "requirements/launcher.txt"):
        (tmp_path / name).touch()
    digests = {build.inputs_digest(tmp_path)}
    for name in ("vm_launcher/new.py", "deploy/launcher/header.sh", "requirements/launcher.txt"):
        (tmp_path / name).write_text("changed")
        digests.add(build.inputs_digest(tmp_path))
    assert len(digests) == 4
    (tmp_path / "deploy/other.py").touch()
    assert build.inputs_digest(tmp_path) in digests, "what does not go in does not count"


def test_a_finished_file_is_taken_and_a_failure_leaves_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "_freeze", lambda work: program(work, "#!/bin/sh\n"))
    lines: list[str] = []
    made = build.build(tmp_path, lines.append)
    first = made.stat().st_mtime_ns
    assert build.build(tmp_path, lines.append).stat().st_mtime_ns == first
    assert len(lines) == 1

    def fails(_: Path) -> Path:
        raise subprocess.CalledProcessError(1, "PyInstaller", output="no strip")

    (tmp_path / "stamp").write_text("older")
    monkeypatch.setattr(build, "_freeze", fails)
    with pytest.raises(subprocess.CalledProcessError):
        build.build(tmp_path, lines.append)
    assert not (tmp_path / "stamp").exists(), "the next run tries again"
