"""The state directory."""

import os
from pathlib import Path

import pytest

from vm_launcher.drivers.base import Handle, VmSpec
from vm_launcher.state import StateDirectory, StateError, StateLockedError, Status


def handle(home: Path) -> Handle:
    spec = VmSpec(
        name="vm",
        directory=home / "vm",
        ctrl_socket=home / "c",
        net_socket=home / "n",
        kernel=home,
        initrd=home,
        command_line="",
        image_sha256="0" * 64,
    )
    return Handle(driver="fake", spec=spec)


def test_one_launcher_at_a_time(tmp_path: Path) -> None:
    first, second = StateDirectory(tmp_path / "s"), StateDirectory(tmp_path / "s")
    first.lock()
    with pytest.raises(StateLockedError, match=f"pid {os.getpid()}"):
        second.lock()
    first.unlock()
    second.lock()
    second.unlock()
    assert (tmp_path / "s").stat().st_mode & 0o777 == 0o700


def test_a_place_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StateError, match="cannot be used"):
        StateDirectory(tmp_path / "file").lock()


def test_a_handle_outlives_the_launcher(tmp_path: Path) -> None:
    StateDirectory(tmp_path).keep_handle(handle(tmp_path))
    found = StateDirectory(tmp_path).load_handle()
    assert found is not None
    assert found[0] == handle(tmp_path)
    StateDirectory(tmp_path).keep_handle(None)
    assert StateDirectory(tmp_path).load_handle() is None


def test_a_handle_of_another_version_is_given_up(tmp_path: Path) -> None:
    (tmp_path / "handle.json").write_text('{"version": 99}')
    assert StateDirectory(tmp_path).load_handle() is None
    assert not (tmp_path / "handle.json").exists()


def test_a_copied_handle_is_not_used(tmp_path: Path) -> None:
    """Its VM may run for the state directory that it was copied from."""
    one, other = tmp_path / "one", tmp_path / "other"
    for home in (one, other):
        home.mkdir()
    StateDirectory(one).keep_handle(handle(one))
    (other / "handle.json").write_bytes((one / "handle.json").read_bytes())
    assert StateDirectory(other).load_handle() is None
    assert StateDirectory(one).load_handle() is not None


def test_a_status_that_was_tampered_with_is_none(tmp_path: Path) -> None:
    (tmp_path / "status.json").write_text("[" * 50_000)
    assert StateDirectory(tmp_path).read_status() is None


def test_sockets_have_short_paths_and_go_away(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 60) / ("e" * 60)
    deep.mkdir(parents=True)
    state = StateDirectory(deep)
    sockets = state.socket_directory()
    assert len(os.fsencode(sockets / "ctrl")) < 108
    assert sockets.stat().st_mode & 0o777 == 0o700
    state.remove_sockets()
    assert not sockets.exists()


def test_sockets_of_an_earlier_run_go_too(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 60) / ("e" * 60)
    deep.mkdir(parents=True)
    sockets = StateDirectory(deep).socket_directory()
    old = handle(deep)
    spec = old.spec.model_copy(update={"ctrl_socket": sockets / "ctrl"})
    later = StateDirectory(deep)
    later.adopt(old.model_copy(update={"spec": spec}))
    later.remove_sockets()
    assert not sockets.exists()


def test_a_directory_that_is_not_ours_stays(tmp_path: Path) -> None:
    state = StateDirectory(tmp_path / "s")
    state.adopt(handle(tmp_path))
    state.remove_sockets()
    assert tmp_path.exists()


def test_status_is_read_back(tmp_path: Path) -> None:
    state = StateDirectory(tmp_path)
    assert state.read_status() is None
    state.write_status(Status(pid=7, state="running"))
    assert state.read_status() == Status(pid=7, state="running")
