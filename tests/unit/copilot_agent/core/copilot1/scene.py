"""An agent among original managers, without any of them."""

from collections.abc import Iterable
from itertools import count
from typing import TypeVar

from copilot_agent.core.copilot1 import words as w
from copilot_agent.core.copilot1.worker import Worker
from copilot_agent.protocol.copilot1 import job_commands as job

MANAGERS = "jm@copilot.test"
ALPHA, BETA = f"{MANAGERS}/alpha", f"{MANAGERS}/beta"
STRANGER = "mallory@copilot.test/x"
T = TypeVar("T")


def run_job(name: str = "job-1", job_data: str | None = "startedAt=5####") -> job.RunJob:
    inner = job.Job(id=name, chirp_url="chirp.test:9094", command="run.sh")
    return job.RunJob(job=inner, job_data=job_data)


def store(name: str = "job-1", job_data: str | None = None) -> job.StoreOutputDir:
    return job.StoreOutputDir(job_id=name, output_chirp_url="out.test:9094", job_data=job_data)


class Scene:
    def __init__(self, earlier: Iterable[w.Assignment] = (), ask_at: float = 0.0) -> None:
        ids, keys = count(1), count(1)
        self.now = 0.0
        self.effects: list[w.Effect] = []
        """Of the last event."""
        self.said: list[tuple[float, w.Say]] = []
        self.worker = Worker(
            MANAGERS,
            new_id=lambda: f"id-{next(ids)}",
            new_key=lambda: f"j-{next(keys):020d}",
            now=0.0,
            earlier=earlier,
            ask_at=ask_at,
        )

    def happens(self, *events: w.Event) -> list[w.Effect]:
        self.effects = self.worker.handle(*events, now=self.now)
        self.said += [(self.now, each) for each in self.all(w.Say)]
        return self.effects

    def hears(self, sender: str, command: job.Command, **rest: bool) -> list[w.Effect]:
        return self.happens(w.Heard(sender, command, **rest))

    def ready(self) -> None:
        """Logged in, with room for a job: the first request goes out."""
        self.happens(w.Online(), w.Room(free=True))

    def until(self, at: float) -> None:
        """Lets time go by; the shell ticks exactly when it was asked to."""
        while (due := self.worker.next_due) is not None and due <= at:
            self.now = max(due, self.now)
            self.happens(w.Tick())
        self.now = at

    def all(self, kind: type[T]) -> list[T]:
        return [each for each in self.effects if isinstance(each, kind)]

    def one(self, kind: type[T]) -> T:
        (found,) = self.all(kind)
        return found

    def times(self, kind: type[job.Command]) -> list[float]:
        """When a command of this kind was said."""
        return [at for at, each in self.said if isinstance(each.command, kind)]

    @property
    def last(self) -> w.Say:
        return self.said[-1][1]

    def takes_a_job(self, name: str = "job-1") -> str:
        """From its first request to runJob; our key of the job."""
        self.ready()
        self.hears(ALPHA, job.HaveJob())
        self.hears(ALPHA, run_job(name))
        return self.one(w.Take).assignment.key

    def finds_a_place(self, key: str, name: str = "job-1") -> None:
        self.happens(w.PlaceWanted(key))
        self.hears(ALPHA, job.HaveOutputDir())
        self.hears(ALPHA, store(name))
