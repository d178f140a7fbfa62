"""What is answered to original agents, without anything that does it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from copilot_agent.protocol.copilot1.commands import COMMANDS, command_of, info_of
from copilot_agent.protocol.copilot1.envelope import Envelope
from copilot_agent.protocol.copilot1.job_commands import (
    Command,
    GetJob,
    GetOutputDir,
    HaveJob,
    HaveOutputDir,
    Job,
    JobDone,
    Redirect,
    RunJob,
    Sleep,
    StoreOutputDir,
    WantJob,
    WantOutputDir,
)
from copilot_agent.protocol.copilot1.machine import Machine
from copilot_agent.protocol.copilot1.tree import Tree
from job_manager_adapter.core.copilot1 import memory
from job_manager_adapter.core.copilot1.instance import (
    Acknowledge,
    Claimed,
    ClaimJob,
    Effects,
    FindPlace,
    Finished,
    Heard,
    Instance,
    Looked,
    LookForJob,
    Manners,
    Note,
    Placed,
    Say,
    TakeResult,
)
from job_manager_adapter.core.copilot1.names import Names, attempt_named

JID = "agent@copilot.test"
AGENT = f"{JID}/4a8d"
KEY = ("j-" + "0" * 20, 2)
NAMES = Names(b"k" * 32)
JOB_ID = NAMES.job_id(JID, KEY)
RUN = RunJob(job=Job(id=JOB_ID, chirp_url="chirp.test:9094", command="run.sh"))
DAY = 86400.0


def instance(**manners: str) -> Instance:
    return Instance(Manners("copilot.test", "chirp.test:9094", **manners), NAMES)


def heard(command: Command, name: str = "1", sender: str = AGENT, **more: object) -> Heard:
    info = info_of(command)
    return Heard(
        Envelope(sender=sender, recipient="jm@copilot.test", id=name, info=info, **more), command
    )


def without_acks(effects: Effects) -> Effects:
    return [effect for effect in effects if not isinstance(effect, Acknowledge)]


def test_a_request_is_acknowledged_first_then_looked_for() -> None:
    first, second = instance().handle(heard(WantJob(machine=Machine(memory_mib=512))), 0)
    assert isinstance(first, Acknowledge) and first.envelope.id == "1"
    assert second == LookForJob(AGENT, Machine(memory_mib=512))


def test_have_get_job_only_if_there_is_one() -> None:
    manager = instance(require_file="/etc/cernvm")
    assert manager.handle(Looked(AGENT, found=True), 0) == [
        Say(AGENT, HaveJob(require_file="/etc/cernvm"))
    ]
    assert manager.handle(Looked(AGENT, found=False), 0) == []


def test_run_job_comes_once_the_claim_is_committed() -> None:
    manager = instance()
    effects = manager.handle(heard(GetJob()), 0)
    assert without_acks(effects) == [ClaimJob(AGENT, "1", Machine())]
    assert manager.handle(Claimed(AGENT, "1", RUN), 1) == [Say(AGENT, RUN)]


def test_a_repeated_get_job_gets_the_very_same_job_for_a_day() -> None:
    manager = instance()
    manager.handle(heard(GetJob()), 0)
    assert without_acks(manager.handle(heard(GetJob()), 1)) == [], "it is still being claimed"
    manager.handle(Claimed(AGENT, "1", RUN), 2)
    resent = heard(GetJob(machine=Machine(memory_mib=1)))
    assert without_acks(manager.handle(resent, DAY)) == [Say(AGENT, RUN)]
    other = heard(GetJob(), sender="other@copilot.test/x")
    assert without_acks(manager.handle(other, 3)) == [
        ClaimJob("other@copilot.test/x", "1", Machine())
    ]


def test_nothing_is_said_where_nothing_could_be_claimed() -> None:
    manager = instance()
    manager.handle(heard(GetJob()), 0)
    assert manager.handle(Claimed(AGENT, "1", None), 1) == []
    assert without_acks(manager.handle(heard(GetJob()), 2)) == []


def test_outputs_are_placed_for_the_agent_whose_job_it_is() -> None:
    manager = instance()
    want, get = WantOutputDir(job_id=JOB_ID), GetOutputDir(job_id=JOB_ID)
    assert without_acks(manager.handle(heard(want), 0)) == [FindPlace(AGENT, want, KEY, False)]
    assert manager.handle(Placed(AGENT, want, ours=True), 0) == [Say(AGENT, HaveOutputDir())]
    assert without_acks(manager.handle(heard(get, "2"), 0)) == [FindPlace(AGENT, get, KEY, True)]
    store = StoreOutputDir(output_dir=JOB_ID, output_chirp_url="chirp.test:9094", job_id=JOB_ID)
    assert manager.handle(Placed(AGENT, get, ours=True), 0) == [Say(AGENT, store)]
    assert manager.handle(Placed(AGENT, get, ours=False), 0) == []


def test_outputs_go_to_a_storage_manager_if_there_is_one() -> None:
    """The agent repeats there what it asked; as with the original, it asks us first."""
    manager = instance(storage_manager="sm@copilot.test")
    want = WantOutputDir(job_id=JOB_ID)
    assert without_acks(manager.handle(heard(want), 0)) == [FindPlace(AGENT, want, KEY, False)]
    get = GetOutputDir(job_id=JOB_ID, job_data="startedAt=1####")
    (say,) = without_acks(manager.handle(heard(get, "2"), 0))
    assert isinstance(say, Say) and isinstance(say.command, Redirect)
    assert say.command.referral == "sm@copilot.test"
    assert command_of(say.command.info) == get


def test_job_done_is_acknowledged_after_its_report_was_committed() -> None:
    manager, done = instance(), JobDone(job_id=JOB_ID, exit_status=0)
    event = heard(done)
    assert manager.handle(event, 0) == [TakeResult(event.envelope, done, KEY)]
    assert manager.handle(event, 1) == [], "it is being taken in"
    assert manager.handle(Finished(event.envelope, safe=True), 2) == [Acknowledge(event.envelope)]
    assert manager.handle(event, 3) == [Acknowledge(event.envelope)], "and again without doing it"


def test_job_done_that_could_not_be_kept_may_come_again() -> None:
    manager, event = instance(), heard(JobDone(job_id=JOB_ID, exit_status=0))
    manager.handle(event, 0)
    assert manager.handle(Finished(event.envelope, safe=False), 1) == []
    assert isinstance(manager.handle(event, 70)[0], TakeResult)


@pytest.mark.parametrize(
    "job_id",
    [
        Names(b"x" * 32).job_id(JID, KEY),
        NAMES.job_id("other@copilot.test", KEY),
        JOB_ID.replace(".2.", ".3."),
        "dbc08e6d-e46f-41c0-ab51-b7ad7a64c418",
    ],
    ids=["another manager's", "another agent's", "another attempt's", "an original's"],
)
def test_a_job_that_is_not_the_agents_own_is_noted_and_nothing_else(job_id: str) -> None:
    for command in (
        JobDone(job_id=job_id, exit_status=0),
        WantOutputDir(job_id=job_id),
        GetOutputDir(job_id=job_id),
    ):
        ack, note = instance().handle(heard(command), 0)
        assert isinstance(ack, Acknowledge)
        assert isinstance(note, Note) and note.kind == "strangers"


@pytest.mark.parametrize(
    "event",
    [
        heard(GetJob(), sender="agent@elsewhere.test/x"),
        heard(GetJob(), sender="copilot.test"),
        heard(GetJob(), sender=""),
        heard(GetJob(), name=""),
        heard(GetJob(), type="groupchat"),
    ],
    ids=["foreign domain", "a server", "nobody", "no id", "in a chat room"],
)
def test_others_are_not_answered(event: Heard) -> None:
    assert instance().handle(event, 0) == []


def test_who_wants_no_acknowledgement_gets_none() -> None:
    assert instance().handle(heard(WantJob(), noack=True), 0) == [LookForJob(AGENT, Machine())]


@given(st.lists(st.sampled_from(sorted(COMMANDS)), max_size=20))
def test_never_sleep(names: list[str]) -> None:
    """Whatever is said, and whatever is found."""
    manager = instance()
    fields = {"jobID": JOB_ID, "exitCode": "0", "outputChirpUrl": "a:1", "event": "e", "value": "1"}
    more = {"duration": "1", "details": "{}", "updates": "{}", "referral": JID}
    nested: Tree = {
        "job": {"id": JOB_ID, "chirpUrl": "a:1", "command": "x"},
        "info": {"command": "x"},
    }
    for number, name in enumerate(names):
        command = command_of({"command": name, **fields, **more, **nested})
        effects = manager.handle(heard(command, str(number)), number)
        effects += manager.handle(Looked(AGENT, found=False), number)
        said = [effect.command for effect in effects if isinstance(effect, Say)]
        assert not any(isinstance(command, Sleep) for command in said)


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "MAX_AGENTS", 50)
    kept = memory.Memory()
    for agent in range(100):
        for message in range(100):
            kept.keep(f"{agent}@copilot.test", str(message), 0)
    assert len(kept) == 50 * memory.MAX_MESSAGES
    assert kept.find("99@copilot.test", "99") and not kept.find("99@copilot.test", "1")
    kept.keep("new@copilot.test", "1", 26 * 3600)
    assert len(kept) == 1, "the old are forgotten"


def test_names_say_whose_attempt_a_directory_is() -> None:
    for name in (JOB_ID, NAMES.input_dir(JID, KEY)):
        assert attempt_named(name) == KEY
    assert attempt_named(".__acl") is attempt_named("in-../etc") is None
    assert NAMES.input_dir(JID, KEY) not in f"in-{JOB_ID}", "who knows one does not know the other"
