"""What one manager instance answers to original agents: events in, effects out.

    want_getJob          ack; have_getJob if a job waits that the agent could take, else silence
    getJob               ack; runJob once the claim is committed, the same one for the same id
    want_getJobOutputDir ack; have_getJobOutputDir from the manager that holds the lease
    getJobOutputDir      ack; storeJobOutputDir, or redirect to a storage manager
    jobDone              ack once its report is committed; only from the agent that has the lease

Never `sleep`: it makes the agent's machine reboot. Whoever is not of our domain is not answered.
"""

from dataclasses import dataclass
from typing import TypeAlias, assert_never

from copilot_agent.protocol.copilot1.commands import info_of
from copilot_agent.protocol.copilot1.envelope import Envelope
from copilot_agent.protocol.copilot1.job_commands import (
    Command,
    GetJob,
    GetOutputDir,
    HaveJob,
    HaveOutputDir,
    JobDone,
    Redirect,
    RunJob,
    StoreOutputDir,
    WantJob,
    WantOutputDir,
)
from copilot_agent.protocol.copilot1.machine import Machine
from job_manager_adapter.core.copilot1.memory import Memory, State
from job_manager_adapter.core.copilot1.names import Names
from job_manager_adapter.core.leases import Key


@dataclass(frozen=True)
class Manners:
    """How this manager answers, as configured."""

    domain: str
    chirp_address: str
    require_file: str | None = None
    """A file that agents must have to be given jobs."""
    storage_manager: str | None = None
    """Where agents are sent with their outputs, instead of to us."""


# ----- events


@dataclass(frozen=True)
class Heard:
    envelope: Envelope
    command: Command


@dataclass(frozen=True)
class Looked:
    """Answer to `LookForJob`."""

    sender: str
    found: bool


@dataclass(frozen=True)
class Claimed:
    """Answer to `ClaimJob`: committed, and its files are there; None: there is nothing."""

    sender: str
    message: str
    run: RunJob | None


@dataclass(frozen=True)
class Placed:
    """Answer to `FindPlace`: whether this manager is the one to take the outputs."""

    sender: str
    about: WantOutputDir | GetOutputDir
    ours: bool


@dataclass(frozen=True)
class Finished:
    """Answer to `TakeResult`. Not `safe`: it has to come again."""

    envelope: Envelope
    safe: bool


Event: TypeAlias = Heard | Looked | Claimed | Placed | Finished


# ----- effects


@dataclass(frozen=True)
class Acknowledge:
    envelope: Envelope


@dataclass(frozen=True)
class Say:
    recipient: str
    command: Command


@dataclass(frozen=True)
class LookForJob:
    sender: str
    machine: Machine


@dataclass(frozen=True)
class ClaimJob:
    sender: str
    message: str
    machine: Machine


@dataclass(frozen=True)
class FindPlace:
    """With `store` the outputs' directory is to be made, too."""

    sender: str
    about: WantOutputDir | GetOutputDir
    attempt: Key
    store: bool


@dataclass(frozen=True)
class TakeResult:
    envelope: Envelope
    done: JobDone
    attempt: Key


@dataclass(frozen=True)
class Note:
    """Something for the log and a counter."""

    kind: str
    agent: str
    text: str


Effect: TypeAlias = Acknowledge | Say | LookForJob | ClaimJob | FindPlace | TakeResult | Note
Effects: TypeAlias = list[Effect]


def bare(jid: str) -> str:
    """The address without its resource."""
    return jid.partition("/")[0]


class Instance:
    def __init__(self, manners: Manners, names: Names) -> None:
        self._manners = manners
        self._names = names
        self._memory = Memory()

    def handle(self, event: Event, now: float) -> Effects:
        match event:
            case Heard():
                return self._heard(event.envelope, event.command, now)
            case Looked():
                have = HaveJob(require_file=self._manners.require_file)
                return [Say(event.sender, have)] if event.found else []
            case Claimed():
                return self._claimed(event)
            case Placed():
                return self._placed(event)
            case Finished():
                return self._finished(event)
            case _ as never:
                assert_never(never)

    def knows(self, envelope: Envelope) -> bool:
        """Whether it is from an agent of ours, and no word in a chat room."""
        name, _, domain = bare(envelope.sender).partition("@")
        return bool(name) and domain == self._manners.domain and envelope.type != "groupchat"

    # ----- messages

    def _heard(self, envelope: Envelope, command: Command, now: float) -> Effects:
        if not self.knows(envelope) or not envelope.id:  # the originals drop what has no id
            return []
        agent = bare(envelope.sender)
        if known := self._memory.find(agent, envelope.id):
            under_way = known.state is State.UNDER_WAY and isinstance(command, JobDone)
            again: Effects = [] if under_way else _acknowledged(envelope)
            return [*again, Say(envelope.sender, known.answer)] if known.answer else again
        message = self._memory.keep(agent, envelope.id, now)
        if isinstance(command, JobDone):
            return self._done(envelope, command)
        if not isinstance(command, GetJob):
            message.state = State.DONE
        return [*_acknowledged(envelope), *self._answer(envelope, command)]

    def _answer(self, envelope: Envelope, command: Command) -> Effects:
        match command:
            case WantJob():
                return [LookForJob(envelope.sender, command.machine)]
            case GetJob():
                return [ClaimJob(envelope.sender, envelope.id, command.machine)]
            case WantOutputDir() | GetOutputDir():
                return self._place(envelope, command)
        return []

    def _place(self, envelope: Envelope, about: WantOutputDir | GetOutputDir) -> Effects:
        referral = self._manners.storage_manager
        if referral and isinstance(about, GetOutputDir):
            return [Say(envelope.sender, Redirect(referral=referral, info=info_of(about)))]
        agent = bare(envelope.sender)
        if attempt := self._names.attempt_of(agent, about.job_id):
            store = isinstance(about, GetOutputDir)
            return [FindPlace(envelope.sender, about, attempt, store)]
        return [Note("strangers", agent, f"asks where to put {about.job_id}, which is not its own")]

    def _done(self, envelope: Envelope, done: JobDone) -> Effects:
        agent = bare(envelope.sender)
        if attempt := self._names.attempt_of(agent, done.job_id):
            return [TakeResult(envelope, done, attempt)]
        if message := self._memory.find(agent, envelope.id):
            message.state = State.DONE
        text = f"reports {done.job_id}, which is not its own"
        return [*_acknowledged(envelope), Note("strangers", agent, text)]

    # ----- answers to effects

    def _claimed(self, event: Claimed) -> Effects:
        message = self._memory.find(bare(event.sender), event.message)
        if message is not None:
            message.state, message.answer = State.DONE, event.run
        return [Say(event.sender, event.run)] if event.run else []

    def _placed(self, event: Placed) -> Effects:
        if not event.ours:
            return []
        if isinstance(event.about, WantOutputDir):
            return [Say(event.sender, HaveOutputDir())]
        job_id = event.about.job_id
        store = StoreOutputDir(
            output_dir=job_id, output_chirp_url=self._manners.chirp_address, job_id=job_id
        )
        return [Say(event.sender, store)]

    def _finished(self, event: Finished) -> Effects:
        agent, name = bare(event.envelope.sender), event.envelope.id
        if not event.safe:
            self._memory.drop(agent, name)
            return []
        if message := self._memory.find(agent, name):
            message.state = State.DONE
        return _acknowledged(event.envelope)


def _acknowledged(envelope: Envelope) -> Effects:
    return [Acknowledge(envelope)] if envelope.wants_ack else []
