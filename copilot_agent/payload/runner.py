"""Starts payloads with the strongest confinement there is, and clears up after a dead agent."""

import asyncio
import logging
import os
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from pathlib import Path

from copilot_agent.payload import group_search, launch
from copilot_agent.payload.enclosure import MIB, Enclosure
from copilot_agent.payload.launch import Identity, PayloadStartError, Start
from copilot_agent.payload.logs import LogFile
from copilot_agent.payload.namespaces import Namespaces, namespaces_work, shared_directories
from copilot_agent.payload.payload import Payload, PayloadEnd, kill_all, remove
from copilot_agent.payload.processes import MARK, Process, ProcessTable, marked, owned_by, owner
from copilot_agent.payload.starter import Starter, no_new_privileges_known
from copilot_agent.payload.tree import hand_over, remove_tree
from copilot_agent.payload.watchdog import Limits
from copilot_agent.protocol.job import FailureClass, JobSpec

__all__ = ["SLOTS", "Payload", "PayloadEnd", "PayloadPlan", "PayloadStartError", "Sandbox"]

log = logging.getLogger(__name__)

SLOTS = 64
"""Payloads at once, at most, and uids from the first on that belong to payloads."""
_LOOK_SECONDS = 1.0
_LOOK_SECONDS_WITHOUT_GROUPS = 0.25
_LOOKS = 3
"""A process that is just becoming another program has no environment for an instant."""


@dataclass(frozen=True, kw_only=True)
class PayloadPlan:
    """One attempt, staged in and ready to start. The logs' directory need not be the payload's."""

    job: str
    attempt: int
    spec: JobSpec
    directory: Path
    stdout: Path
    stderr: Path
    proxy: str | None = None


@lru_cache(maxsize=8)
def _real(directory: Path) -> str:
    """Without links on the way: some may lead through what is hidden from a payload."""
    return os.path.realpath(directory)


class Sandbox:
    """Where payloads run, with the strongest confinement that this system allows."""

    def __init__(
        self, scratch: Path, *, uid: int | None, gid: int | None, starter: Starter | None = None
    ) -> None:
        """`uid` is the first of `SLOTS` user ids, one for each payload that runs at the same time;
        they must not be used otherwise. Without privileges, or with None, payloads share the
        agent's own. `gid` is the payloads' common group, by which they may read staged inputs;
        None: as `uid`. `starter` is best made before the agent imports much.
        """
        self._starter = starter or Starter()
        self._own_starter = starter is None
        self._scratch = scratch.absolute()
        privileged = os.geteuid() == 0
        self._uid = uid if privileged else None
        self._gid = (uid if gid is None else gid) if privileged else None
        self._private = self._uid is not None and namespaces_work()
        self._make_directories()
        self._shared = shared_directories(self._scratch)
        digest = sha256(os.fsencode(self._scratch)).hexdigest()[:12]
        self._groups = group_search.find_groups(f"copilot-{digest}")
        self._free = deque(range(SLOTS))
        """Slots by how long they have been free: zombies of the last payload count for its uid."""
        self._null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)

    def _make_directories(self) -> None:
        """Payloads of another user must be able to pass through, not to look into."""
        passable = self._gid is not None
        self._scratch.mkdir(parents=True, exist_ok=True)
        if passable:
            self._scratch.chmod(0o711)
        self.work.mkdir(mode=0o700, exist_ok=True)
        self.work.chmod(0o711 if passable else 0o700)
        self.cache.mkdir(mode=0o700, exist_ok=True)
        if self._gid is not None:
            os.chown(self.cache, -1, self._gid)
            self.cache.chmod(0o710)

    @property
    def work(self) -> Path:
        """Directory for attempts, emptied by `reclaim`."""
        return self._scratch / "work"

    @property
    def cache(self) -> Path:
        """Directory for staged inputs; outlives the agent."""
        return self._scratch / "cache"

    def probe(self) -> tuple[str, ...]:
        """How payloads are kept in, as words of `Capabilities.confinement`."""
        words = ["uid"] if self._uid is not None else []
        if self._groups is not None:
            words.append(self._groups.word)
        words.append("rlimits")
        if no_new_privileges_known():
            words.append("no_new_privs")
        return tuple(words)

    async def start(self, plan: PayloadPlan) -> Payload:
        """Returns once the program runs. Raises PayloadStartError."""
        if not self._free:
            message = f"more than {SLOTS} payloads at once"
            raise PayloadStartError(message, FailureClass.HOST)
        starting = asyncio.create_task(self._start_in(self._free.popleft(), plan))
        try:
            return await asyncio.shield(starting)
        except asyncio.CancelledError:
            await asyncio.wait([starting])
            if starting.exception() is None:
                await starting.result().kill(FailureClass.HOST, "not wanted", grace_seconds=0.0)
            raise

    async def _start_in(self, slot: int, plan: PayloadPlan) -> Payload:
        try:
            return await self._start(plan, slot)
        except OSError as error:
            self._free.append(slot)
            message = f"the payload could not be set up: {error}"
            raise PayloadStartError(message, FailureClass.HOST) from error
        except BaseException:
            self._free.append(slot)
            raise

    async def _start(self, plan: PayloadPlan, slot: int) -> Payload:
        identity = self._identity(slot)
        environment = launch.environment(
            job=plan.job,
            attempt=plan.attempt,
            spec=plan.spec,
            directory=plan.directory,
            scratch=self._scratch,
            proxy=plan.proxy,
        )
        program = launch.find_program(
            plan.spec.command[0], plan.directory, environment.get("PATH", "")
        )
        self._prepare(plan.directory, identity)
        limits = Limits.of(plan.spec)
        enclosure = self._enclose(plan, limits, identity)
        logs: list[LogFile] = []
        try:
            for path in (plan.stdout, plan.stderr):
                logs.append(LogFile(path, plan.spec.limits.log_mib * MIB))
            pid = await launch.spawn(
                self._starter,
                Start(
                    argv=plan.spec.command,
                    executable=program,
                    environment=environment,
                    directory=plan.directory,
                    identity=identity,
                    entries=enclosure.entries,
                    limits=launch.resource_limits(
                        limits,
                        enclosed=self._groups is not None,
                        own_uid=identity.uid is not None,
                    ),
                    namespaces=self._namespaces(plan),
                    stdin=self._null,
                    stdout=logs[0].writer,
                    stderr=logs[1].writer,
                ),
            )
        except BaseException:
            for each in logs:
                each.close()
            enclosure.remove()
            raise
        enclosure.started(pid)
        return Payload(
            pid=pid,
            directory=plan.directory,
            limits=limits,
            enclosure=enclosure,
            logs=(logs[0], logs[1]),
            look_seconds=_LOOK_SECONDS if self._groups else _LOOK_SECONDS_WITHOUT_GROUPS,
            released=lambda: self._free.append(slot),
        )

    def _identity(self, slot: int) -> Identity:
        if self._uid is None:
            return Identity()
        return Identity(uid=self._uid + slot, gid=self._gid)

    def _namespaces(self, plan: PayloadPlan) -> Namespaces | None:
        if not self._private:
            return None
        return Namespaces(
            temporary=f"{_real(plan.directory.parent)}/{plan.directory.name}/{launch.TEMPORARY}",
            hidden=self._shared,
            network=plan.spec.network,
        )

    def _prepare(self, directory: Path, identity: Identity) -> None:
        with suppress(FileExistsError):
            os.mkdir(f"{directory}/{launch.TEMPORARY}", 0o700)  # noqa: PTH102 - quicker
        directory.chmod(0o700)
        if identity.uid is not None and identity.gid is not None:
            hand_over(directory, identity.uid, identity.gid)

    def _enclose(self, plan: PayloadPlan, limits: Limits, identity: Identity) -> Enclosure:
        if self._groups is not None:
            return self._groups.create(f"{plan.job}.{plan.attempt}", limits.bounds)
        if identity.uid is not None:
            memory = limits.bounds.memory_bytes
            return ProcessTable(owned_by(identity.uid), memory, uid=identity.uid)
        expected = {
            MARK: str(self._scratch),
            "COPILOT_JOB": plan.job,
            "COPILOT_ATTEMPT": str(plan.attempt),
        }
        return ProcessTable(marked(expected), limits.bounds.memory_bytes, looks=_LOOKS)

    async def reclaim(self) -> list[str]:
        """Kills what an earlier agent with this scratch directory left, and removes its work.

        Call it before the first start. Returns what was found, one text each.
        """
        found = []
        for name, enclosure in self._leftovers():
            if not await kill_all(enclosure):
                log.error("%s: some processes resist being killed", name)
            await remove(enclosure)
            found.append(name)
        for path in sorted(self.work.iterdir()):
            await asyncio.to_thread(remove_tree, path)
            found.append(f"work {path.name}")
        return found

    def _leftovers(self) -> Iterator[tuple[str, Enclosure]]:
        if self._groups is not None:
            for name, group in self._groups.leftovers():
                yield f"group {name}", group
        table = ProcessTable(self._leftover, memory_bytes=0, looks=_LOOKS)
        if living := table.living():
            pids = ", ".join(str(process.pid) for process in living)
            yield f"processes {pids}", table

    def _leftover(self, process: Process) -> bool:
        """Whether a process is a payload's, whatever agent started it in this scratch directory."""
        if self._uid is not None:
            uid = owner(process.pid)
            return uid is not None and self._uid <= uid < self._uid + SLOTS
        return marked({MARK: str(self._scratch)})(process)

    def close(self) -> None:
        """After the last payload's end."""
        if self._own_starter:
            self._starter.close()
        os.close(self._null)
        if self._groups is not None:
            self._groups.close()
