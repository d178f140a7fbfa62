"""The archive of a job's outputs: all that is the payload's, and nothing else."""

import os
import tarfile
from pathlib import Path

import pytest

from copilot_agent.payload.tree import remove_tree
from copilot_agent.payload.watchdog import MAX_DEPTH
from copilot_agent.transports.copilot1.packing import Packing


def packed(
    directory: Path, archive: Path, max_bytes: int = 1 << 20, skip: frozenset[str] = frozenset()
) -> tuple[dict[str, tarfile.TarInfo], str]:
    """Members by name, and what is lacking."""
    packing = Packing(archive, max_bytes)
    packing.tree(directory, skip)
    packing.close()
    with tarfile.open(archive, "r:gz") as tar:
        return {member.name: member for member in tar}, packing.lacking


@pytest.fixture
def work(tmp_path: Path) -> Path:
    directory = tmp_path / "work"
    directory.mkdir()
    return directory


def test_files_directories_and_links_are_in_it_and_nothing_of_this_host(
    work: Path, tmp_path: Path
) -> None:
    (work / "sub" / "empty").mkdir(parents=True)
    (work / "sub" / "file").write_bytes(b"content")
    (work / "run.sh").write_bytes(b"#!")
    (work / "run.sh").chmod(0o755)
    os.utime(work / "run.sh", (0, 1_234_567_890))
    os.utime(work / "sub" / "file", (0, -5))
    (work / "link").symlink_to("/etc/passwd")
    (work / "folder").symlink_to("/etc")
    (work / "odd \udcff name").write_bytes(b"")
    os.mkfifo(work / "pipe")
    members, lacking = packed(work, tmp_path / "a.tgz")
    assert sorted(members) == [
        "./folder",
        "./link",
        "./odd \udcff name",
        "./run.sh",
        "./sub",
        "./sub/empty",
        "./sub/file",
    ]
    assert members["./link"].linkname == "/etc/passwd"
    assert members["./folder"].issym()
    assert members["./run.sh"].mode == 0o755
    assert members["./run.sh"].mtime == 1_234_567_890
    assert members["./sub/file"].mtime == 0
    assert {(m.uid, m.gid, m.uname, m.gname) for m in members.values()} == {(0, 0, "", "")}
    assert lacking == ""


def test_names_to_skip_are_skipped_at_the_top_only(work: Path, tmp_path: Path) -> None:
    for folder in (work / ".tmp", work / "sub" / ".tmp"):
        folder.mkdir(parents=True)
        (folder / "x").touch()
    members, _ = packed(work, tmp_path / "a.tgz", skip=frozenset({".tmp"}))
    assert sorted(members) == ["./sub", "./sub/.tmp", "./sub/.tmp/x"]


def test_what_does_not_fit_is_left_out_and_said(work: Path, tmp_path: Path) -> None:
    (work / "small").write_bytes(b"x" * 10)
    with (work / "sparse").open("wb") as file:
        file.truncate(1 << 40)
    members, lacking = packed(work, tmp_path / "a.tgz", max_bytes=100)
    assert sorted(members) == ["./small"]
    assert lacking.startswith("1 files")


def test_endless_directories_have_an_end(work: Path, tmp_path: Path) -> None:
    here = os.open(work, os.O_RDONLY)
    for _ in range(1500):  # longer than any path may be
        os.mkdir("d", dir_fd=here)
        inner = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = inner
    os.close(here)
    members, _ = packed(work, tmp_path / "a.tgz")
    remove_tree(work)  # whoever clears up after tests cannot
    assert len(members) == MAX_DEPTH


@pytest.mark.root
def test_a_hard_link_to_another_one_s_file_is_left_out(work: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret")
    os.link(secret, work / "mine")
    os.chown(work, 12_345, 12_345)
    members, _ = packed(work, tmp_path / "a.tgz")
    assert members == {}


def test_logs_that_are_not_there_are_empty(tmp_path: Path) -> None:
    packing = Packing(tmp_path / "a.tgz", 100)
    packing.log("stdout", tmp_path / "none")
    packing.close()
    with tarfile.open(tmp_path / "a.tgz") as tar:
        assert tar.getmember("./stdout").size == 0
