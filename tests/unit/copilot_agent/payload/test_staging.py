import asyncio
import hashlib
import io
import os
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from copilot_agent.payload.runner import PayloadPlan
from copilot_agent.payload.staging import (
    MissingOutputError,
    OutputTooLargeError,
    StageIn,
    StageInError,
    StageOut,
    StageOutError,
)
from copilot_agent.payload.tree import remove_tree
from copilot_agent.protocol.frames import InputLink, OutputLink
from copilot_agent.protocol.job import FailureClass, JobSpec, Limits
from copilot_agent.transports.base import FileMoveError, Moved

JOB = "j-0000000000000000000a"
SPEC = JobSpec(experiment="alice", command=("true",))


@dataclass
class Mover:
    """A server's files; `faults` are raised by the next calls, after half of the file came."""

    files: dict[str, bytes] = field(default_factory=dict)
    faults: list[FileMoveError] = field(default_factory=list)
    offsets: list[int] = field(default_factory=list)
    uploaded: dict[str, bytes] = field(default_factory=dict)
    gate: asyncio.Event | None = None
    started: asyncio.Event = field(default_factory=asyncio.Event)

    async def download(
        self, url: str, target: Path, *, offset: int, max_bytes: int, progress: Moved | None = None
    ) -> str:
        self.offsets.append(offset)
        self.started.set()
        if self.gate is not None:
            await self.gate.wait()
        content = self.files[url][: max_bytes + 1]
        end = (offset + len(content)) // 2 if self.faults else len(content)
        with target.open("ab") as file:
            file.write(content[offset:end])
        if progress is not None:
            progress(end - offset)
        if self.faults:
            raise self.faults.pop(0)
        return hashlib.sha256(target.read_bytes()).hexdigest()

    async def upload(
        self, url: str, source: Path, *, sha256: str, size: int, progress: Moved | None = None
    ) -> None:
        if self.faults:
            raise self.faults.pop(0)
        content = source.read_bytes()
        assert (len(content), hashlib.sha256(content).hexdigest()) == (size, sha256)
        self.uploaded[url] = content
        if progress is not None:
            progress(size)

    def link(self, name: str, content: bytes, *, unpack: bool = False) -> InputLink:
        url = f"http://files.test/{name}"
        self.files[url] = content
        digest = hashlib.sha256(content).hexdigest()
        return InputLink(name=name, url=url, sha256=digest, size=len(content), unpack=unpack)


TROUBLE = FileMoveError("connection lost", retryable=True)


@dataclass
class Pauses:
    seen: list[float] = field(default_factory=list)

    async def __call__(self, seconds: float) -> None:
        self.seen.append(seconds)


@pytest.fixture
def mover() -> Mover:
    return Mover()


@pytest.fixture
def pauses() -> Pauses:
    return Pauses()


@pytest.fixture
def stage_in(tmp_path: Path, mover: Mover, pauses: Pauses) -> StageIn:
    return StageIn(tmp_path / "cache", tmp_path / "work", mover, sleep=pauses)


def left(tmp_path: Path) -> list[str]:
    return sorted(str(each.relative_to(tmp_path)) for each in (tmp_path / "work").iterdir())


async def test_inputs_are_links_to_read_only_files(stage_in: StageIn, mover: Mover) -> None:
    moved: list[int] = []
    links = [mover.link("data/a", b"alpha"), mover.link("b", b"beta"), mover.link("none", b"")]
    directory = await stage_in.prepare(JOB, 1, SPEC, links, moved.append)
    assert (directory / "data/a").read_bytes() == b"alpha"
    assert (directory / "b").read_bytes() == b"beta"
    assert (directory / "none").read_bytes() == b""
    assert (directory / "b").is_symlink()
    assert (directory / "b").stat().st_mode & 0o777 == 0o444
    assert directory.stat().st_mode & 0o777 == 0o700
    assert sum(moved) == 9


async def test_the_program_among_the_inputs_can_be_run(stage_in: StageIn, mover: Mover) -> None:
    spec = JobSpec(experiment="alice", command=("./bin/run", "x"))
    directory = await stage_in.prepare(JOB, 1, spec, [mover.link("bin/run", b"#!/bin/sh\n")])
    assert (directory / "bin/run").stat().st_mode & 0o777 == 0o555


async def test_a_file_comes_once_for_all_jobs(stage_in: StageIn, mover: Mover) -> None:
    link = mover.link("wheel", b"x" * 1000)
    mover.gate = asyncio.Event()
    attempts = [asyncio.create_task(stage_in.prepare(JOB, n, SPEC, [link])) for n in (1, 2, 3)]
    await asyncio.sleep(0)  # all three have begun
    mover.gate.set()
    for directory in await asyncio.gather(*attempts):
        assert (directory / "wheel").read_bytes() == b"x" * 1000
    assert mover.offsets == [0]


async def test_downloads_go_on_where_they_stopped(
    stage_in: StageIn, mover: Mover, pauses: Pauses
) -> None:
    mover.faults = [TROUBLE, TROUBLE]
    content = bytes(range(250)) * 4
    directory = await stage_in.prepare(JOB, 1, SPEC, [mover.link("a", content)])
    assert (directory / "a").read_bytes() == content
    assert mover.offsets == [0, 500, 750]
    assert 0.25 <= pauses.seen[0] <= 0.5 <= pauses.seen[1] <= 1.0


async def test_a_later_attempt_goes_on_too(
    stage_in: StageIn, mover: Mover, pauses: Pauses, tmp_path: Path
) -> None:
    mover.faults = [TROUBLE] * 6
    link = mover.link("a", b"z" * 1024)
    with pytest.raises(StageInError, match="a: connection lost") as caught:
        await stage_in.prepare(JOB, 1, SPEC, [link])
    assert caught.value.retryable
    assert sum(pauses.seen) < 30
    assert left(tmp_path) == []
    await stage_in.prepare(JOB, 2, SPEC, [link])
    assert mover.offsets[-1] == 1008


@pytest.mark.parametrize(("retryable", "expired"), [(False, False), (True, True)])
async def test_hopeless_downloads_are_not_repeated(
    stage_in: StageIn, mover: Mover, pauses: Pauses, retryable: bool, expired: bool
) -> None:
    mover.faults = [FileMoveError("not there", retryable=retryable, link_expired=expired)]
    with pytest.raises(StageInError) as caught:
        await stage_in.prepare(JOB, 1, SPEC, [mover.link("a", b"abc")])
    assert (caught.value.retryable, caught.value.link_expired) == (retryable, expired)
    assert pauses.seen == []


async def test_a_wrong_hash_is_fetched_again_once(
    stage_in: StageIn, mover: Mover, tmp_path: Path
) -> None:
    link = mover.link("a", b"right")
    mover.files[link.url] = b"wrong"
    with pytest.raises(StageInError, match=r"a: has the hash .* was declared") as caught:
        await stage_in.prepare(JOB, 1, SPEC, [link])
    assert not caught.value.retryable
    assert mover.offsets == [0, 0]
    assert list((tmp_path / "cache/partial").iterdir()) == []
    assert list((tmp_path / "cache/files").iterdir()) == []
    mover.files[link.url] = b"right"
    assert ((await stage_in.prepare(JOB, 2, SPEC, [link])) / "a").read_bytes() == b"right"


async def test_a_short_file_is_said(stage_in: StageIn, mover: Mover) -> None:
    link = mover.link("a", b"123456")
    mover.files[link.url] = b"123"
    with pytest.raises(StageInError, match="only 3 of 6 bytes came"):
        await stage_in.prepare(JOB, 1, SPEC, [link])


def zipped(name: str, content: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(name, content)
    return buffer.getvalue()


async def test_archives_are_unpacked_once(stage_in: StageIn, mover: Mover, tmp_path: Path) -> None:
    link = mover.link("lib", zipped("pkg/mod.py", b"x = 1\n"), unpack=True)
    first = await stage_in.prepare(JOB, 1, SPEC, [link])
    second = await stage_in.prepare(JOB, 2, SPEC, [link])
    assert (first / "lib/pkg/mod.py").read_bytes() == b"x = 1\n"
    assert (second / "lib").resolve() == (first / "lib").resolve()
    assert (first / "lib").stat().st_mode & 0o777 == 0o555
    assert mover.offsets == [0]
    assert list((tmp_path / "cache/files").iterdir()) == [], "the archive itself is not kept"


async def test_hostile_archives_leave_nothing(
    stage_in: StageIn, mover: Mover, tmp_path: Path
) -> None:
    link = mover.link("lib", zipped("../../evil", b"x"), unpack=True)
    with pytest.raises(StageInError, match=r"lib: the name '\.\./\.\./evil' leads out") as caught:
        await stage_in.prepare(JOB, 1, SPEC, [link])
    assert not caught.value.retryable
    assert list((tmp_path / "cache/trees").iterdir()) == []
    assert left(tmp_path) == []


async def test_a_cancelled_attempt_leaves_only_the_cache(
    stage_in: StageIn, mover: Mover, tmp_path: Path
) -> None:
    mover.gate = asyncio.Event()
    link = mover.link("a", b"abc")
    first = asyncio.create_task(stage_in.prepare(JOB, 1, SPEC, [link]))
    second = asyncio.create_task(stage_in.prepare(JOB, 2, SPEC, [link]))
    await mover.started.wait()
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    mover.gate.set()
    assert ((await second) / "a").read_bytes() == b"abc"
    assert left(tmp_path) == [f"work/{JOB}.2"]


async def test_the_oldest_unused_files_make_room(tmp_path: Path, mover: Mover) -> None:
    stage_in = StageIn(tmp_path / "cache", tmp_path / "work", mover, cache_bytes=2500)
    links = [mover.link(f"f{n}", bytes([n]) * 1000) for n in range(4)]
    for attempt, n in enumerate((0, 1, 0)):
        remove_tree(await stage_in.prepare(JOB, attempt, SPEC, [links[n]]))
    kept = await stage_in.prepare(JOB, 3, SPEC, [links[2]])
    names = {each.name for each in (tmp_path / "cache/files").iterdir()}
    assert names == {links[0].sha256, links[2].sha256}
    await stage_in.prepare(JOB, 4, SPEC, [links[3], links[1]])
    assert (kept / "f2").read_bytes() == b"\2" * 1000, "what an attempt uses stays"


async def test_attempts_that_make_room_at_once_do_not_collide(tmp_path: Path, mover: Mover) -> None:
    stage_in = StageIn(tmp_path / "cache", tmp_path / "work", mover, cache_bytes=6000)
    old = [mover.link(f"old{n}", bytes([n]) * 1000) for n in range(6)]
    remove_tree(await stage_in.prepare(JOB, 1, SPEC, old))
    links = [mover.link(f"new{n}", bytes([n + 6]) * 1500) for n in range(4)]
    await stage_in.prepare(JOB, 2, SPEC, links)
    names = {each.name for each in (tmp_path / "cache/files").iterdir()}
    assert names >= {link.sha256 for link in links}
    assert not list((tmp_path / "cache/partial").iterdir())


async def test_the_cache_outlives_the_agent(tmp_path: Path, mover: Mover) -> None:
    links = [mover.link("a", b"abc"), mover.link("z", zipped("m", b"1"), unpack=True)]
    for number in (1, 2):
        (tmp_path / "cache/trees/unpacking-old").mkdir(parents=True, exist_ok=True)
        stage_in = StageIn(tmp_path / "cache", tmp_path / "work", mover)
        await stage_in.prepare(JOB, number, SPEC, links)
    assert len(mover.offsets) == 2
    assert not (tmp_path / "cache/trees/unpacking-old").exists()


# ----- out


@pytest.fixture
def ended(tmp_path: Path) -> PayloadPlan:
    directory = tmp_path / "payload"
    directory.mkdir()
    (tmp_path / "out").write_text("said\n")
    (tmp_path / "err").write_text("")
    return PayloadPlan(
        job=JOB,
        attempt=1,
        spec=JobSpec(experiment="alice", command=("true",), limits=Limits(output_mib=1)),
        directory=directory,
        stdout=tmp_path / "out",
        stderr=tmp_path / "err",
    )


def target(name: str, max_bytes: int = 1 << 30, *, optional: bool = False) -> OutputLink:
    url = f"http://files.test/{name}"
    return OutputLink(name=name, url=url, max_bytes=max_bytes, optional=optional)


async def test_declared_outputs_and_logs_go_out(mover: Mover, ended: PayloadPlan) -> None:
    (ended.directory / "plots").mkdir()
    (ended.directory / "plots/mass.csv").write_text("91.2\n")
    (ended.directory / "undeclared").write_text("no\n")
    names = ["plots/mass.csv", "stdout.log", "stderr.log"]
    outputs = await StageOut(mover).upload(
        ended, [*map(target, names), target("maybe", optional=True)]
    )
    assert [(each.name, each.size) for each in outputs] == list(zip(names, [5, 5, 0], strict=True))
    assert outputs[0].sha256 == hashlib.sha256(b"91.2\n").hexdigest()
    assert mover.uploaded["http://files.test/stdout.log"] == b"said\n"
    assert outputs[2].sha256 == hashlib.sha256().hexdigest()
    assert len(mover.uploaded) == 2, "an empty file needs no upload"


async def test_all_missing_outputs_are_named(mover: Mover, ended: PayloadPlan) -> None:
    (ended.directory / "there").write_text("x")
    (ended.directory / "folder").mkdir()
    (ended.directory / "link").symlink_to("there")
    os.mkfifo(ended.directory / "pipe")
    (ended.directory / "through").symlink_to("folder")
    names = ["there", "gone", "folder", "link", "pipe", "through/x", "there/x"]
    with pytest.raises(MissingOutputError) as caught:
        await StageOut(mover).upload(ended, [target(name) for name in names])
    assert caught.value.failure_class is FailureClass.PAYLOAD
    assert caught.value.message == (
        "declared outputs are missing: gone was not made; folder is a directory, not a file; "
        "link is a link, not a file; pipe is a pipe, not a file; through/x Not a directory; "
        "there/x Not a directory"
    )
    assert mover.uploaded == {}


def stranger(directory: Path) -> None:
    """A hard link to another user's file, as a payload could make without protected_hardlinks."""
    (directory.parent / "key").write_text("secret")
    os.chown(directory, 61000, 61000)
    (directory / "out").hardlink_to(directory.parent / "key")


def large(directory: Path) -> None:
    with (directory / "out").open("wb") as file:
        file.truncate((1 << 20) + 1)


@pytest.mark.parametrize(
    ("make", "max_bytes", "error", "words"),
    [
        pytest.param(
            stranger,
            1 << 30,
            MissingOutputError,
            "not the payload's own file",
            marks=pytest.mark.root,
        ),
        (large, 1 << 30, OutputTooLargeError, "raise limits.output_mib"),
        (large, 1000, OutputTooLargeError, "out: 1048577 bytes, more than 1000"),
    ],
)
async def test_outputs_that_are_refused(
    mover: Mover,
    ended: PayloadPlan,
    make: Callable[[Path], None],
    max_bytes: int,
    error: type[StageOutError],
    words: str,
) -> None:
    make(ended.directory)
    with pytest.raises(error, match=words):
        await StageOut(mover).upload(ended, [target("out", max_bytes)])
    assert mover.uploaded == {}


async def test_a_failed_upload_says_what_and_why(mover: Mover, ended: PayloadPlan) -> None:
    mover.faults = [FileMoveError("link expired", retryable=True, link_expired=True)]
    with pytest.raises(StageOutError, match=r"stdout\.log: link expired") as caught:
        await StageOut(mover).upload(ended, [target("stdout.log")])
    assert caught.value.link_expired
    assert caught.value.failure_class is FailureClass.STAGE_OUT
