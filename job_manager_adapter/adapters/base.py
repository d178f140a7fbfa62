"""The contract between the manager and an experiment's scheduler.

The scheduler owns the job. An adapter claims upstream first and only then hands the job to the
manager, which stores it and gives it to a pilot. Whatever happens to the job is told upstream until
upstream has taken it: each call may come again after an outage or a restart, so every method is
idempotent. An outage upstream is an `UpstreamError`; it kills no running work.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from copilot_agent.protocol.job import FailureClass, JobSpec, Outcome, Output, Requirements, Usage

NO_USAGE = Usage()


class UpstreamError(Exception):
    """The scheduler cannot be reached or does not answer now; the same call comes again later."""


@dataclass(frozen=True)
class Room:
    """Free room in each of `pilots` pilots; several jobs may share one pilot's."""

    pilots: int
    cores: int
    memory_mib: int
    disk_mib: int
    platform: str
    cpu_flags: frozenset[str] = frozenset()

    def takes(self, need: Requirements) -> bool:
        return (
            self.pilots > 0
            and need.cores <= self.cores
            and need.memory_mib <= self.memory_mib
            and need.disk_mib <= self.disk_mib
            and need.platform == self.platform
            and self.cpu_flags.issuperset(need.cpu_flags)
        )

    def less(self, need: Requirements) -> "tuple[Room, Room]":
        """The pilots that are left as they were, and the one that took the job."""
        one = replace(
            self,
            pilots=1,
            cores=self.cores - need.cores,
            memory_mib=self.memory_mib - need.memory_mib,
            disk_mib=self.disk_mib - need.disk_mib,
        )
        return replace(self, pilots=self.pilots - 1), one


class Packing:
    """For `Adapter.fetch`: keeps account of the room while jobs are picked."""

    def __init__(self, room: Sequence[Room]) -> None:
        self._room = list(room)

    def take(self, need: Requirements) -> bool:
        """Whether a job with these requirements still fits; if so, its room is taken."""
        for index, room in enumerate(self._room):
            if room.takes(need):
                self._room[index : index + 1] = [item for item in room.less(need) if item.pilots]
                return True
        return False


@dataclass(frozen=True)
class SourcedJob:
    """A job that was claimed upstream under `upstream_id`."""

    upstream_id: str
    spec: JobSpec


@dataclass(frozen=True)
class Result:
    """How a job ended, told once it is final."""

    outcome: Outcome
    exit_code: int | None = None
    failure_class: FailureClass | None = None
    message: str = ""
    usage: Usage = NO_USAGE
    outputs: tuple[Output, ...] = ()


@dataclass(frozen=True)
class Finding:
    """One line of `doctor`: what was looked at, whether it is good, what to do if not."""

    subject: str
    good: bool
    message: str
    remedy: str = ""


class Adapter(Protocol):
    """One experiment's scheduler, built from the options of its configuration section."""

    poll_seconds: float | None
    """How often to ask for jobs; None for a source that never has any of its own."""

    async def start(self) -> None:
        """Connects; may raise UpstreamError, then it is called again."""

    async def close(self) -> None: ...

    async def fetch(self, room: Sequence[Room]) -> list[SourcedJob]:
        """Claims upstream what fits into `room` and hands it over.

        A job that was claimed earlier and that `adopted` did not confirm is handed over again.
        """

    async def adopted(self, upstream_ids: Sequence[str]) -> None:
        """These jobs are stored durably here."""

    async def started(self, upstream_id: str, host: str) -> None: ...

    async def renew(self, upstream_ids: Sequence[str]) -> None:
        """These jobs live; for schedulers that want to hear that."""

    async def finished(self, upstream_id: str, result: Result) -> None: ...

    async def cancelled(self) -> list[str]:
        """Upstream ids of claimed jobs whose owner has taken them back."""

    async def doctor(self) -> list[Finding]: ...


class AdapterFactory(Protocol):
    """What an entry point of the group `copilot.adapters` names."""

    def __call__(self, experiment: str, options: Mapping[str, object]) -> Adapter:
        """Raises ValueError that names the option and the remedy."""
