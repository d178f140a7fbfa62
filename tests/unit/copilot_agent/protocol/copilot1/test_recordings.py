"""What was recorded between the original programs is understood, whole and sent again."""

from collections import Counter

import pytest

from copilot_agent.protocol.copilot1 import job_commands as job
from copilot_agent.protocol.copilot1.commands import UnknownCommand, command_of, info_of
from copilot_agent.protocol.copilot1.envelope import Envelope, ack_of, read_envelope
from copilot_agent.protocol.copilot1.job_commands import Command
from copilot_agent.protocol.copilot1.job_data import JobData, parse_job_data
from copilot_agent.protocol.copilot1.machine import Machine
from copilot_agent.protocol.copilot1.monitor_commands import HaveStatus
from copilot_agent.protocol.copilot1.parsing import parse_stanza, stanza_bytes
from tests.unit.copilot_agent.protocol.copilot1.recordings import (
    recorded,
    recorded_commands,
    sent_again,
)

AGENTS = (job.WantJob, job.GetJob, job.WantOutputDir, job.GetOutputDir, job.JobDone)
"""Only agents send again."""


def messages() -> list[Envelope]:
    return [read_envelope(parse_stanza(data)) for data in recorded()]


def again(envelope: Envelope) -> Envelope:
    return read_envelope(parse_stanza(stanza_bytes(envelope)))


def test_every_recorded_message_is_there() -> None:
    """172 begin in the file; four of these are cut off."""
    assert len(recorded()) == 168


@pytest.mark.parametrize("data", recorded(), ids=lambda data: str(len(data)))
def test_each_means_the_same_once_it_is_written_by_us(data: bytes) -> None:
    envelope = read_envelope(parse_stanza(data))
    assert again(envelope) == envelope
    if envelope.info is not None:
        command = command_of(envelope.info)
        assert not isinstance(command, UnknownCommand)
        assert command.noack == envelope.noack
        written = again(envelope.model_copy(update={"info": info_of(command)})).info
        assert written is not None
        assert command_of(written) == command


def test_these_commands_were_recorded() -> None:
    assert Counter(command.command for _, command in recorded_commands()) == {
        "want_getJob": 15,
        "have_getJob": 6,
        "sleep": 4,
        "getJob": 13,
        "runJob": 5,
        "want_getJobOutputDir": 6,
        "have_getJobOutputDir": 5,
        "getJobOutputDir": 5,
        "storeJobOutputDir": 4,
        "jobDone": 4,
        "redirect": 1,
        "reportEvent": 3,
        "reportEventDuration": 1,
        "Heartbeat:ping": 4,
        "pong": 3,
        "Heartbeat:getStatus": 4,
        "haveStatus": 4,
    }


def test_the_others_are_acks_errors_subjects_and_sealed_ones() -> None:
    """The original's secure mode has no info but attributes of the body."""
    others = [one for one in messages() if one.info is None]
    kinds = Counter("ack" if one.ack else one.type for one in others)
    assert kinds == {"ack": 68, "error": 8, "groupchat": 3, "": 2}


def test_what_was_acknowledged_is_what_we_would_acknowledge() -> None:
    recorded_ids = {one.id for one in messages() if one.info is not None}
    theirs = {bare(one) for one in messages() if one.ack in recorded_ids and one.ack}
    ours = {bare(ack_of(one)) for one in messages() if one.wants_ack}
    assert len(theirs) == 46
    assert theirs <= ours


def bare(envelope: Envelope) -> tuple[str, str, str]:
    """A server tells the resource of who speaks, which he need not say himself."""
    addresses = (envelope.sender, envelope.recipient)
    sender, recipient = (address.partition("/")[0] for address in addresses)
    return sender, recipient, envelope.ack


def test_copies_that_an_agent_sent_again_are_the_same_command() -> None:
    copies = [data for data in recorded() if b"HASH(0x" in data]
    assert len(copies) == 3
    expected = job.WantJob(
        machine=Machine(
            host="vm",
            platform="Linux-x86_64",
            kernel="6.18.44-fc-v657",
            memory_mib=24105,
            free_memory_mib=13109,
            free_disk_kib=75051064,
        ),
        agent_host="vm",
    )
    for data in copies:
        envelope = read_envelope(parse_stanza(data))
        assert envelope.id == "bd06fa32-68e8-4a1c-9926-e58c57e92263"
        assert envelope.info is not None
        assert command_of(envelope.info) == expected


@pytest.mark.parametrize("kind", AGENTS, ids=lambda kind: kind.__name__)
def test_every_message_of_an_agent_would_be_the_same_sent_again(kind: type[Command]) -> None:
    sent = [(one, command) for one, command in recorded_commands() if isinstance(command, kind)]
    assert len(sent) >= 4
    for envelope, command in sent:
        copy = read_envelope(parse_stanza(sent_again(envelope)))
        assert copy.id == envelope.id
        assert copy.info is not None
        assert command_of(copy.info) == command


def test_the_recorded_jobs_are_understood() -> None:
    jobs = [command.job for _, command in recorded_commands() if isinstance(command, job.RunJob)]
    assert (
        job.Job(
            id="dbc08e6d-e46f-41c0-ab51-b7ad7a64c418",
            chirp_url="127.0.0.1:19094",
            input_dir="dbc08e6d-e46f-41c0-ab51-b7ad7a64c418",
            input_files=("hello.sh",),
            command="hello.sh",
            arguments="a b 'c d'",
            environment='export MYVAR="x&<>y"',
            packages=("VO_ALICE@AliRoot::v4-16-Rev-01",),
        )
        in jobs
    )
    assert (
        job.Job(
            id="job-validate",
            chirp_url="127.0.0.1:19094",
            input_dir="in-validate",
            input_files=("hello.sh", "val.sh"),
            command="hello.sh",
            arguments="1 2",
            environment="export A=1\nexport B=2",
            validation_script="val.sh",
        )
        in jobs
    )


def test_the_recorded_reports_are_understood() -> None:
    done = [command for _, command in recorded_commands() if isinstance(command, job.JobDone)]
    assert {(one.exit_status, one.validate_exit_status) for one in done} == {(0, None), (0, 1280)}
    assert {one.job_data for one in done} == {
        "startedAt=1795356972####",
        "opaque-2",
        "wallTime=0.00####startedAt=1795357554####",
    }


def test_a_recorded_redirect_keeps_what_it_does_not_know() -> None:
    [redirect] = [one for _, one in recorded_commands() if isinstance(one, job.Redirect)]
    assert redirect.referral == "sm@copilot.test"
    assert redirect.info["note"] == "forward me"
    assert isinstance(command_of(redirect.info), job.WantJob)


def test_the_recorded_states_have_the_form_of_job_data() -> None:
    states = {
        command.component: parse_job_data(command.status)
        for _, command in recorded_commands()
        if isinstance(command, HaveStatus)
    }
    assert states["systemLoad"].values["1min"] == "2.38"
    assert states["diskUsage"].values["mountpoint"] == "/"
    assert states["memoryUsage"] == JobData()
    assert len(states[""].values["rss"]) == 9
