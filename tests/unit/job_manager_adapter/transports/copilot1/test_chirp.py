"""The Chirp server's root: what the manager lays out there, and what strangers put there."""

import os
from pathlib import Path

import pytest

from copilot_agent.payload.archive import ArchiveError
from copilot_agent.protocol.errors import CopilotError
from job_manager_adapter.transports.copilot1.chirp import ChirpRoot

JOB = "j-00000000000000000000.1." + "0" * 24


@pytest.fixture
def root(tmp_path: Path) -> ChirpRoot:
    made = ChirpRoot(tmp_path / "root", "address:192.0.2.*")
    (tmp_path / "root").mkdir()
    made.prepare()
    return made


def put(tmp_path: Path, content: bytes = b"archive") -> Path:
    """As an agent does it."""
    path = tmp_path / "root" / JOB / f"{JOB}.tgz"
    path.write_bytes(content)
    return path


def test_inputs_may_be_read_and_nothing_else(root: ChirpRoot, tmp_path: Path) -> None:
    blob = tmp_path / "blob"
    blob.write_bytes(b"cards")
    for _ in range(2):  # also when it is there from before a restart
        root.export(f"in-{JOB}", {"cards.dat": blob}, {"start.sh": "true\n"})
    directory = tmp_path / "root" / f"in-{JOB}"
    found = {path.name: path.read_text() for path in directory.iterdir()}
    assert found == {
        ".__acl": "address:192.0.2.* rl\n",
        "cards.dat": "cards",
        "start.sh": "true\n",
    }
    assert (tmp_path / "root" / ".__acl").read_text() == "", "nobody has a right at the top"


def test_an_archive_is_taken_from_where_only_writing_is_allowed(
    root: ChirpRoot, tmp_path: Path
) -> None:
    root.receive(JOB)
    assert (tmp_path / "root" / JOB / ".__acl").read_text() == "address:192.0.2.* w\n"
    put(tmp_path)
    root.receive(JOB)
    with root.archive(JOB) as file:
        assert file.read() == b"archive", "asking again takes nothing away"
    root.remove(JOB)
    assert not (tmp_path / "root" / JOB).exists()


@pytest.mark.parametrize("kind", ["symlink", "hard link", "pipe", "directory", "missing"])
def test_what_is_no_ordinary_file_is_not_opened(root: ChirpRoot, tmp_path: Path, kind: str) -> None:
    root.receive(JOB)
    path, secret = tmp_path / "root" / JOB / f"{JOB}.tgz", tmp_path / "secret"
    secret.write_bytes(b"secret")
    match kind:
        case "symlink":
            path.symlink_to(secret)
        case "hard link":
            path.hardlink_to(secret)
        case "pipe":
            os.mkfifo(path)
        case "directory":
            path.mkdir()
    with pytest.raises(ArchiveError), root.archive(JOB):
        pass


def test_a_link_instead_of_the_directory_is_not_followed(root: ChirpRoot, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / f"{JOB}.tgz").write_bytes(b"secret")
    (tmp_path / "root" / JOB).symlink_to(elsewhere)
    with pytest.raises(ArchiveError), root.archive(JOB):
        pass
    root.remove(JOB)
    assert (elsewhere / f"{JOB}.tgz").exists()


def test_only_our_own_old_directories_are_leftovers(root: ChirpRoot, tmp_path: Path) -> None:
    root.receive(JOB)
    root.export(f"in-{JOB}", {}, {})
    (tmp_path / "root" / "somebody-elses").mkdir()
    assert {name for name, _ in root.leftovers(-60)} == {JOB, f"in-{JOB}"}
    assert list(root.leftovers(60)) == []


def test_a_root_that_cannot_be_one_is_refused_with_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path)
    for name in ("missing", "file", "link"):
        with pytest.raises(CopilotError, match="chirp_root") as caught:
            ChirpRoot(tmp_path / name, "address:*").prepare()
        assert "chirp_server" in caught.value.remedy
