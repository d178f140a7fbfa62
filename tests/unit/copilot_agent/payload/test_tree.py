import os
from pathlib import Path

import pytest

from copilot_agent.payload.tree import Scan, open_beneath, remove_tree
from copilot_agent.payload.watchdog import MAX_DEPTH


def fill(directory: Path, files: int) -> None:
    for number in range(files):
        (directory / f"f{number}").write_bytes(b"x" * 4096)


def dig(directory: Path, depth: int) -> None:
    """Directories too deep for any path."""
    handle = os.open(directory, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir("deep", dir_fd=handle)
        deeper = os.open("deep", os.O_RDONLY, dir_fd=handle)
        os.close(handle)
        handle = deeper
    os.close(handle)


def test_a_scan_in_slices_finds_the_same(tmp_path: Path) -> None:
    fill(tmp_path, 200)
    (tmp_path / "sub").mkdir()
    fill(tmp_path / "sub", 100)
    whole = Scan(tmp_path).advance(60)
    assert (whole.files, whole.too_deep) == (301, False)
    assert whole.bytes >= 300 * 4096
    sliced = Scan(tmp_path)
    seen = [sliced.advance(0).bytes for _ in range(301)]
    assert seen == sorted(seen)
    assert sliced.latest.bytes == whole.bytes


def test_what_is_removed_no_longer_counts(tmp_path: Path) -> None:
    fill(tmp_path, 3)
    scan = Scan(tmp_path)
    before = scan.advance(60).bytes
    (tmp_path / "f1").unlink()
    assert scan.advance(60).bytes < before


def test_hard_links_count_once_and_holes_not_at_all(tmp_path: Path) -> None:
    fill(tmp_path, 1)
    before = Scan(tmp_path).advance(60).bytes
    (tmp_path / "again").hardlink_to(tmp_path / "f0")
    with (tmp_path / "hole").open("wb") as file:
        file.truncate(1 << 30)
    (tmp_path / "outside").symlink_to("/")
    assert Scan(tmp_path).advance(60).bytes == before


def test_depth_is_bounded(tmp_path: Path) -> None:
    dig(tmp_path, 3 * MAX_DEPTH)
    open_files = len(list(Path("/proc/self/fd").iterdir()))
    disk = Scan(tmp_path).advance(60)
    assert disk.too_deep
    assert disk.files == MAX_DEPTH
    assert len(list(Path("/proc/self/fd").iterdir())) == open_files


def test_a_directory_that_is_gone(tmp_path: Path) -> None:
    assert Scan(tmp_path / "gone").advance(60).files == 0


def test_removes_the_endless_the_odd_and_the_forbidden(tmp_path: Path) -> None:
    top = tmp_path / "top"
    for name in ("a", "b", "removed-1", "removed-2/removed-3"):
        (top / name).mkdir(parents=True)
    dig(top / "a", 3000)
    dig(top / "b", 1500)
    (top / "removed-2/removed-3/file").write_text("x")
    os.mkfifo(top / "pipe")
    (top / "link").symlink_to(tmp_path)
    (tmp_path / "kept").write_text("kept")
    (top / "removed-2").chmod(0)
    remove_tree(top)
    assert [each.name for each in tmp_path.iterdir()] == ["kept"]
    remove_tree(top)


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("link", "is a link, not a file"),
        ("pipe", "is a pipe, not a file"),
        ("folder", "is a directory, not a file"),
        ("linked/file", "Not a directory"),
        ("gone", "No such file"),
        ("../outside", "too many|No such|Not a"),
    ],
)
def test_only_files_without_links_are_opened(tmp_path: Path, name: str, error: str) -> None:
    inside = tmp_path / "inside"
    (inside / "folder").mkdir(parents=True)
    (inside / "folder/file").write_text("x")
    (inside / "linked").symlink_to("folder")
    (inside / "link").symlink_to("folder/file")
    os.mkfifo(inside / "pipe")
    with pytest.raises(OSError, match=error):
        open_beneath(inside, name)
    handle = open_beneath(inside, "folder/file")
    assert os.read(handle, 10) == b"x"
    os.close(handle)
