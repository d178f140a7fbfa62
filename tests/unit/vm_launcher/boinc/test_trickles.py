"""Trickles: each arrives once, whenever the launcher dies."""

import contextlib
import errno
import itertools
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from copilot_agent.protocol.errors import ErrorCode
from vm_launcher.boinc import trickles
from vm_launcher.boinc.errors import SlotError, TrickleError
from vm_launcher.boinc.trickles import (
    AGAIN,
    APART,
    MOST_BODY,
    MOST_DOWN,
    MOST_DOWN_AT_ONCE,
    MOST_QUEUED,
    TricklesDown,
    TricklesUp,
)


class ClientSide:
    """Takes what it is told of, as the client does it."""

    def __init__(self, slot: Path) -> None:
        self._file = slot / "trickle_up.xml"
        self.taken: list[str] = []

    def told(self) -> None:
        if self._file.exists():
            self.taken.append(self._file.read_text())
            self._file.unlink()


class Crash(BaseException):
    """The process is gone."""


class Crashing:
    """Raises at the nth step on the disk: before, in the middle of, or after it."""

    def __init__(
        self,
        monkeypatch: pytest.MonkeyPatch,
        step: int,
        when: str,
        error: BaseException | None = None,
    ) -> None:
        self._error = error or Crash()
        self._left = step
        self._when = when
        self.crashed = False
        for name in ("write_file", "replace_file", "sync_directory"):
            monkeypatch.setattr(trickles, name, self._around(getattr(trickles, name)))

    def _around(self, real: Callable[..., None]) -> Callable[..., None]:
        def step(path: Path, *data: Any) -> None:
            self._left -= 1
            if self._left != 0:
                return real(path, *data)
            self.crashed = True
            if self._when == "amid" and data:
                path.with_name(path.name.removesuffix(".part") + ".part").write_bytes(data[0][:9])
            if self._when == "after":
                real(path, *data)
            raise self._error

        return step


def run(up: TricklesUp, client: ClientSide, clock: Iterator[float]) -> None:
    """Until the client has all, at most."""
    while len(up):
        now = next(clock)
        if up.advance(now):
            up.flagged(now)
            client.told()


def work(slot: Path, client: ClientSide, clock: Iterator[float], total: int) -> None:
    """A launcher that reports its running time in pieces, and knows by the mark how far it was."""
    up = TricklesUp(slot)
    for reached in range(int(up.mark or 0), total, 10):
        up.add("copilot_runtime", "<runtime>10</runtime>", str(reached + 10))
        run(up, client, clock)
    run(up, client, clock)


@pytest.mark.parametrize("curious", [False, True], ids=["", "client takes it unasked"])
@pytest.mark.parametrize("when", ["before", "amid", "after"])
def test_nothing_lost_and_nothing_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str, curious: bool
) -> None:
    for step in itertools.count(1):
        slot = tmp_path / str(step)
        slot.mkdir()
        client, clock = ClientSide(slot), itertools.count(0.0, 0.5)
        with monkeypatch.context() as patched:
            crashing = Crashing(patched, step, when)
            with contextlib.suppress(Crash):
                work(slot, client, clock, total=30)
        if curious:
            client.told()
        work(slot, client, clock, total=30)
        text = "<variety>copilot_runtime</variety>\n<runtime>10</runtime>"
        assert client.taken == [text] * 3, step
        assert not (slot / "trickle_up.part").exists()
        if not crashing.crashed:
            break
    assert step > 10


@pytest.mark.parametrize("when", ["before", "amid", "after"])
def test_a_disk_that_is_full_for_a_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    full = OSError(errno.ENOSPC, "No space left on device")
    for step in itertools.count(1):
        slot = tmp_path / str(step)
        slot.mkdir()
        up, client, clock = TricklesUp(slot), ClientSide(slot), itertools.count(0.0, 0.5)
        with monkeypatch.context() as patched:
            crashing = Crashing(patched, step, when, full)
            for _ in range(2):
                with contextlib.suppress(TrickleError):
                    up.add("v", "one", "queued")
                    break
            while len(up):
                with contextlib.suppress(OSError):
                    run(up, client, clock)
        assert client.taken == ["<variety>v</variety>\none"], step
        assert TricklesUp(slot).mark == "queued"
        if not crashing.crashed:
            break
    assert step > 5


def test_a_trickle_that_cannot_be_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    up = TricklesUp(tmp_path)
    Crashing(monkeypatch, 1, "before", OSError(errno.ENOSPC, "No space left on device"))
    with pytest.raises(TrickleError, match="cannot be kept: No space") as told:
        up.add("v", "one", "mark")
    assert told.value.code is ErrorCode.NO_SPACE
    assert (len(up), up.mark) == (0, "")


def test_a_restart_while_the_client_has_not_taken_it(tmp_path: Path) -> None:
    up = TricklesUp(tmp_path)
    up.add("v", "one")
    assert up.advance(0)
    up.flagged(0)
    again = TricklesUp(tmp_path)
    assert len(again) == 1
    assert again.advance(0), "the flag was in memory that is gone"


def test_a_restart_right_after_one_was_taken(tmp_path: Path) -> None:
    up, client = TricklesUp(tmp_path), ClientSide(tmp_path)
    up.add("v", "one")
    up.add("v", "two")
    assert up.advance(100)
    client.told()
    again = TricklesUp(tmp_path)
    assert not again.advance(0)
    assert not again.advance(APART - 0.1)
    assert again.advance(APART)
    client.told()
    assert len(client.taken) == 2


def test_a_second_waits_until_the_first_is_gone_and_a_second_has_passed(tmp_path: Path) -> None:
    up, client = TricklesUp(tmp_path), ClientSide(tmp_path)
    up.add("v", "one")
    up.add("v", "two")
    assert up.advance(0)
    up.flagged(0)
    assert not up.advance(1)
    client.told()
    assert not up.advance(2)
    assert len(up) == 1
    assert not up.advance(2 + APART - 0.01)
    assert up.advance(2 + APART)
    client.told()
    assert client.taken == ["<variety>v</variety>\none", "<variety>v</variety>\ntwo"]


def test_a_client_that_read_the_flag_and_took_nothing_is_told_again(tmp_path: Path) -> None:
    up = TricklesUp(tmp_path)
    up.add("v", "one")
    assert up.advance(0)
    assert up.advance(0), "it could not be flagged"
    up.flagged(0)
    assert not up.advance(AGAIN - 0.1)
    assert up.advance(AGAIN)


@pytest.mark.parametrize(
    ("variety", "body"),
    [
        ("", ""),
        ("a b", ""),
        ("<x>", ""),
        ("v", "x" * (MOST_BODY + 1)),
        ("v", "a\0"),
        ("v" * 999, ""),
    ],
)
def test_what_is_no_trickle(tmp_path: Path, variety: str, body: str) -> None:
    up = TricklesUp(tmp_path)
    with pytest.raises(TrickleError, match="no trickle message"):
        up.add(variety, body, "mark")
    assert (len(up), up.mark) == (0, "")


def test_a_full_queue(tmp_path: Path) -> None:
    up = TricklesUp(tmp_path)
    for _ in range(MOST_QUEUED):
        up.add("v", "", "before")
    with pytest.raises(TrickleError, match="wait"):
        up.add("v", "", "after")
    assert up.mark == TricklesUp(tmp_path).mark == "before"


def test_the_largest_trickle(tmp_path: Path) -> None:
    TricklesUp(tmp_path).add("v", "𝛑" * MOST_BODY)
    up, client = TricklesUp(tmp_path), ClientSide(tmp_path)
    run(up, client, itertools.count(0.0, 0.5))
    assert client.taken == ["<variety>v</variety>\n" + "𝛑" * MOST_BODY]


def test_a_state_that_cannot_be_read_is_not_taken_for_an_empty_one(tmp_path: Path) -> None:
    (tmp_path / "copilot_trickles.json").write_text("{")
    with pytest.raises(SlotError, match="unknown what has been reported"):
        TricklesUp(tmp_path)


def test_trickles_down_in_order_and_once(tmp_path: Path) -> None:
    (tmp_path / "trickle_down_2").write_text("second")
    (tmp_path / "trickle_down_1").write_text("first")
    down = TricklesDown(tmp_path)
    assert down.take() == ["first", "second"], "those of an earlier episode, too"
    (tmp_path / "trickle_down_3").write_text("third")
    assert down.take() == []
    down.announced()
    assert down.take() == ["third"]
    assert list(tmp_path.iterdir()) == []


def test_hostile_trickles_down(tmp_path: Path) -> None:
    (tmp_path / "trickle_down_0").write_bytes(b"x" * (MOST_DOWN + 1))
    (tmp_path / "trickle_down_1").symlink_to("/etc/passwd")
    os.mkfifo(tmp_path / "trickle_down_2")
    (tmp_path / "trickle_down_3").mkdir()
    (tmp_path / "trickle_down_4").write_bytes(b"\xff")
    assert TricklesDown(tmp_path).take() == ["�"]
    assert [path.name for path in tmp_path.iterdir()] == ["trickle_down_3"]


def test_many_trickles_down_come_in_portions(tmp_path: Path) -> None:
    for number in range(MOST_DOWN_AT_ONCE + 1):
        (tmp_path / f"trickle_down_{number:03}").touch()
    down = TricklesDown(tmp_path)
    assert [len(down.take()) for _ in range(3)] == [MOST_DOWN_AT_ONCE, 1, 0]
