"""Real payloads under each kind of confinement, with a fence around them should ours fail."""

import asyncio
import ctypes
import itertools
import os
import pickle
import resource
import tempfile
import traceback
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pytest

from copilot_agent.payload import group_search
from copilot_agent.payload.processes import MARK, marks, processes
from copilot_agent.payload.runner import SLOTS, Payload, PayloadEnd, PayloadPlan, Sandbox
from copilot_agent.payload.tree import remove_tree
from copilot_agent.protocol.job import JobSpec

T = TypeVar("T")
NOBODY = 61500
UIDS = itertools.count(200_000, SLOTS)
"""First uids of sandboxes; never the same again, as zombies count for a uid's processes."""
JOB = "j-0000000000000000000a"
NO_GROUPS = (
    "no control groups can be made here, though this is root: /sys/fs/cgroup must be mounted and "
    "writable, with the controllers memory and pids (a container needs them handed in)"
)


@dataclass(frozen=True)
class Run:
    """One payload's end and what it left."""

    end: PayloadEnd
    stdout: bytes
    stderr: bytes
    survivors: list[int]
    """Processes of the sandbox that live on."""


def spec(*command: str, **changes: Any) -> JobSpec:
    return JobSpec(experiment="alice", command=command, **changes)


def survivors(scratch: Path) -> list[int]:
    marked = (each.pid for each in processes() if marks(each.pid).get(MARK) == str(scratch))
    return list(marked)


@dataclass
class Lab:
    """A place with one kind of confinement: groups, uids or user."""

    kind: str
    top: Path
    uid: int = field(default_factory=lambda: next(UIDS))

    @property
    def scratch(self) -> Path:
        return self.top / "scratch"

    def do(self, work: Callable[[Sandbox], Awaitable[T]]) -> T:
        """Runs `work` with a sandbox; as an ordinary user in a process of its own."""
        if self.kind == "user" and os.geteuid() == 0:
            return _in_child(lambda: self._do(work), NOBODY)
        return self._do(work)

    def _do(self, work: Callable[[Sandbox], Awaitable[T]]) -> T:
        async def main() -> T:
            sandbox = self.sandbox()
            try:
                return await work(sandbox)
            finally:
                sandbox.close()

        return asyncio.run(main())

    def sandbox(self) -> Sandbox:
        with pytest.MonkeyPatch.context() as patch:
            if self.kind != "groups":
                patch.setattr(group_search, "find_groups", lambda _: None)
            return Sandbox(self.scratch, uid=None if self.kind == "user" else self.uid, gid=None)

    async def start(self, sandbox: Sandbox, job: JobSpec, attempt: int = 1) -> Payload:
        return await sandbox.start(plan(sandbox, job, attempt))

    def run(self, *command: str, files: dict[str, str] | None = None, **changes: Any) -> Run:
        """Runs one payload to its end."""

        async def work(sandbox: Sandbox) -> Run:
            plan_ = plan(sandbox, spec(*command, **changes))
            for name, text in (files or {}).items():
                (plan_.directory / name).write_text(text)
            end = await (await sandbox.start(plan_)).wait()
            return Run(
                end,
                said(plan_.stdout),
                said(plan_.stderr),
                survivors(self.scratch),
            )

        return self.do(work)


def said(log: Path) -> bytes:
    """What is in a log; there is none if nothing was printed."""
    return log.read_bytes() if log.exists() else b""


def plan(sandbox: Sandbox, job: JobSpec, attempt: int = 1) -> PayloadPlan:
    directory = sandbox.work / f"{JOB}.{attempt}"
    directory.mkdir(mode=0o700)
    return PayloadPlan(
        job=JOB,
        attempt=attempt,
        spec=job,
        directory=directory,
        stdout=directory.with_name(f"{directory.name}.stdout"),
        stderr=directory.with_name(f"{directory.name}.stderr"),
    )


def become(uid: int) -> None:
    """Turns this process into an ordinary user's, for good."""
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
    ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)  # PR_SET_DUMPABLE, as after a login


def _in_child(work: Callable[[], T], uid: int) -> T:
    """Forks, becomes another user, and hands back the result or the error's text."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            become(uid)
            os.write(writer, pickle.dumps(work()))
            code = 0
        except BaseException:  # noqa: BLE001 - the parent shows it
            os.write(writer, traceback.format_exc().encode())
        finally:
            os._exit(code)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        answer = pipe.read()
    _, status = os.waitpid(pid, 0)
    assert status == 0, answer.decode()
    result: T = pickle.loads(answer)  # noqa: S301 - from our own child
    return result


@pytest.fixture(autouse=True)
def fence() -> Iterator[None]:
    """Bounds what a payload inherits, in case that the code under test does not."""
    kept = {
        which: resource.getrlimit(which) for which in (resource.RLIMIT_NPROC, resource.RLIMIT_AS)
    }
    try:
        resource.setrlimit(resource.RLIMIT_NPROC, (1500, kept[resource.RLIMIT_NPROC][1]))
        resource.setrlimit(resource.RLIMIT_AS, (6 << 30, kept[resource.RLIMIT_AS][1]))
        yield
    finally:
        for which, values in kept.items():
            resource.setrlimit(which, values)


@pytest.fixture(
    params=[
        pytest.param("groups", marks=pytest.mark.root),
        pytest.param("uids", marks=pytest.mark.root),
        "user",
    ]
)
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    yield from make_lab(request.param)


def make_lab(kind: str) -> Iterator[Lab]:
    top = Path(tempfile.mkdtemp(prefix="copilot-payload-"))
    top.chmod(0o711)
    if kind == "user" and os.geteuid() == 0:
        os.chown(top, NOBODY, NOBODY)
    place = Lab(kind, top)
    if kind == "groups":
        sandbox = place.sandbox()
        words = sandbox.probe()
        sandbox.close()
        if not {"cgroup1", "cgroup2"} & set(words):
            remove_tree(top)
            pytest.fail(NO_GROUPS, pytrace=False)
    try:
        yield place
    finally:
        remove_tree(top)
