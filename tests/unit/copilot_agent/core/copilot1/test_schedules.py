"""Whatever managers, strangers and networks do, and in whatever order."""

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from copilot_agent.core.copilot1 import words as w
from copilot_agent.protocol.copilot1 import job_commands as job
from tests.unit.copilot_agent.core.copilot1.scene import (
    ALPHA,
    BETA,
    MANAGERS,
    STRANGER,
    Scene,
    run_job,
    store,
)

COMMANDS = [
    job.HaveJob(),
    job.HaveJob(require_file="/x"),
    run_job(),
    run_job("job-2"),
    job.Sleep(),
    job.HaveOutputDir(),
    store(),
    store("job-2"),
    job.ErrorCommand(error_string="x"),
    job.Redirect(referral=STRANGER, info={"command": "getJob"}),
]
SENDERS = st.sampled_from([ALPHA, BETA, MANAGERS, STRANGER])
HAPPENINGS = st.one_of(
    st.builds(w.Heard, SENDERS, st.sampled_from(COMMANDS), st.booleans()),
    st.builds(w.Garbled, SENDERS, st.sampled_from(["", "job-1"]), st.just("reason")),
    st.sampled_from(["ack", "bounce", "unsent", "online", "place", "end", "explain", "forget"]),
    st.floats(0, 1000),
)


class Life(Scene):
    """Plays the shell: what it is told it believes, and it knows what the pilot holds."""

    def __init__(self) -> None:
        super().__init__()
        self.running: list[str] = []
        """Jobs of which the pilot has made no report."""
        self.unsent: set[str] = set()
        self.ready()

    def lives(self, happening: object) -> None:
        match happening:
            case float():
                self.until(self.now + happening)
            case w.Heard() | w.Garbled():
                self.happens(happening)
            case str():
                for event in self.event(happening):
                    self.happens(event)
        self.happens(w.Room(free=not self.running))

    def event(self, kind: str) -> list[w.Event]:
        message, held = self.last.id, [each.key for each in self.worker.assignments]
        if kind == "unsent":
            self.unsent.add(message)
        if kind == "end" and self.running:
            return [w.Ended(self.running.pop(), 0, 1.0)]
        made: dict[str, list[w.Event]] = {
            "ack": [w.Acked(sender, message) for sender in (STRANGER, ALPHA, BETA)],
            "bounce": [w.Bounced(message)],
            "unsent": [w.Unsent(message)],
            "online": [w.Online()],
            "place": [w.PlaceWanted(key) for key in self.running],
            "explain": [w.Explained(key) for key in held],
            "forget": [w.Forgotten(key) for key in held],
        }
        return made.get(kind, [])

    def happens(self, *events: w.Event) -> list[w.Effect]:
        effects = super().happens(*events)
        for taken in self.all(w.Take):
            assert not self.running, "a second job beside the first"
            self.running.append(taken.assignment.key)
        return effects


@settings(max_examples=500)
@given(st.lists(HAPPENINGS, max_size=40))
def test_nothing_makes_it_ask_too_often_take_two_jobs_or_talk_to_strangers(
    happenings: list[object],
) -> None:
    life = Life()
    for happening in happenings:
        life.lives(happening)
    assert all(w.bare(each.to) == MANAGERS for _, each in life.said)
    requests = [
        at
        for at, each in life.said
        if isinstance(each.command, job.WantJob) and each.id not in life.unsent
    ]
    gaps = [after - before for before, after in pairwise(requests)]
    assert all(gap >= 60.999 for gap in gaps)


@settings(max_examples=200)
@given(st.lists(HAPPENINGS, max_size=30))
def test_after_whatever_happened_a_job_is_done_in_the_end(happenings: list[object]) -> None:
    life = Life()
    for happening in happenings:
        life.lives(happening)
    life.happens(w.Online())
    while life.running:
        life.lives("end")
    done = len(life.times(job.JobDone))
    for _ in range(60):
        if len(life.times(job.JobDone)) > done:
            break
        life.until(life.now + 61)
        life.lives(w.Heard(ALPHA, job.HaveJob()))
        life.lives(w.Heard(ALPHA, run_job("job-3")))
        life.lives(w.Heard(ALPHA, job.HaveOutputDir()))
        for each in life.worker.assignments:
            life.lives(w.Heard(ALPHA, store(each.job)))
        for kind in ("place", "end", "explain"):
            life.lives(kind)
    assert len(life.times(job.JobDone)) > done
