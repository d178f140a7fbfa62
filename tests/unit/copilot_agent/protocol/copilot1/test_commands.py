"""Typed commands: each comes back, and nothing hostile passes the door."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from copilot_agent.protocol.copilot1 import job_commands as job
from copilot_agent.protocol.copilot1.commands import (
    COMMANDS,
    UnknownCommand,
    command_of,
    info_of,
)
from copilot_agent.protocol.copilot1.envelope import Envelope, read_envelope
from copilot_agent.protocol.copilot1.errors import StanzaError
from copilot_agent.protocol.copilot1.job_commands import Command
from copilot_agent.protocol.copilot1.machine import Machine
from copilot_agent.protocol.copilot1.parsing import parse_stanza, stanza_bytes
from copilot_agent.protocol.copilot1.tree import Tree
from copilot_agent.protocol.copilot1.wait_status import Ending
from tests.unit.copilot_agent.protocol.copilot1.recordings import sent_again
from tests.unit.copilot_agent.protocol.copilot1.strategies import (
    anything,
    asking,
    commands,
    names,
    trees,
)

JOB: Tree = {"id": "j", "chirpUrl": "127.0.0.1:9094", "command": "run.sh"}
DONE: Tree = {"command": "jobDone", "jobID": "j", "exitCode": "0"}


@given(commands)
def test_any_command_comes_back_over_the_wire(command: Command) -> None:
    data = stanza_bytes(Envelope(id="1", info=info_of(command)))
    got = read_envelope(parse_stanza(data)).info
    assert got is not None
    assert command_of(got) == command


def test_every_known_command_has_its_own_name() -> None:
    assert len(COMMANDS) == 21
    assert {name: model.__name__ for name, model in COMMANDS.items() if not name.isalpha()} == {
        "want_getJob": "WantJob",
        "have_getJob": "HaveJob",
        "want_getJobOutputDir": "WantOutputDir",
        "have_getJobOutputDir": "HaveOutputDir",
        "Heartbeat:ping": "Ping",
        "Heartbeat:getStatus": "GetStatus",
    }


def test_a_job_goes_out_under_the_names_that_the_original_agent_reads() -> None:
    command = job.RunJob(
        job_data="startedAt=1####",
        job=job.Job(
            id="j",
            chirp_url="chirp.org:9094",
            input_dir="in",
            input_files=("a.sh", "b.dat"),
            command="a.sh",
            arguments="1 'two words'",
            environment="export A=1\nexport B=2",
            packages=("VO_ALICE@AliRoot::v4-16-Rev-01", "VO_ALICE@Root::v5"),
            validation_script="check.sh",
        ),
    )
    assert info_of(command) == {
        "command": "runJob",
        "jmJobData": "startedAt=1####",
        "job": {
            "id": "j",
            "chirpUrl": "chirp.org:9094",
            "inputDir": "in",
            "inputFiles": "a.sh###b.dat",
            "command": "a.sh",
            "arguments": "1 'two words'",
            "environment": "export A=1\nexport B=2",
            "packages": "VO_ALICE@AliRoot::v4-16-Rev-01 VO_ALICE@Root::v5",
            "validationScript": "check.sh",
        },
    }


def test_a_report_carries_raw_wait_statuses() -> None:
    done = job.JobDone(job_id="j", agent_host="vm", exit_status=768, validate_exit_status=1280)
    assert info_of(done) == {
        "command": "jobDone",
        "jobID": "j",
        "state": "ready",
        "exitCode": "768",
        "validateExitCode": "1280",
        "agentHost": "vm",
    }
    assert done.ending == Ending(3)


def test_empty_is_undefined() -> None:
    tree: Tree = {"validateExitCode": "", "jmJobData": "", "agentHost": "", "state": "ready"}
    assert command_of({**DONE, **tree}) == command_of(DONE)
    got = command_of({"command": "runJob", "job": {**JOB, "inputFiles": "######", "packages": ""}})
    assert got == job.RunJob(
        job=job.Job(id="j", chirp_url="127.0.0.1:9094", command="run.sh", input_files=())
    )


@pytest.mark.parametrize("files", ["a###b", "###a###b", "a###b###", "a######b"])
def test_empty_input_files_are_skipped(files: str) -> None:
    got = command_of({"command": "runJob", "job": {**JOB, "inputFiles": files}})
    assert isinstance(got, job.RunJob)
    assert got.job.input_files == ("a", "b")


def test_unknown_attributes_are_skipped_and_python_names_mean_nothing() -> None:
    assert command_of({**DONE, "note": "x", "body": {"a": "b"}}) == command_of(DONE)
    with pytest.raises(StanzaError, match=r"^jobID: is missing$"):
        command_of({"command": "jobDone", "job_id": "j", "exitCode": "0"})


def test_what_is_redirected_is_kept_whole() -> None:
    inner: Tree = {"command": "want_getJob", "note": "", "job": {"x": "y"}}
    got = command_of({"command": "redirect", "referral": "sm@copilot.test", "info": inner})
    assert got == job.Redirect(referral="sm@copilot.test", info=inner)
    assert info_of(got)["info"] == inner


def test_commands_of_others_are_kept_and_have_no_effect() -> None:
    tree: Tree = {"command": "getTicket", "credential": "blah"}
    got = command_of(tree)
    assert got == UnknownCommand(command="getTicket", info=tree)
    assert info_of(got) == tree


HOSTILE_NAMES = [
    "x;touch /tmp/pwn",
    "../..",
    "..",
    ".",
    ".hidden",
    "-rf",
    "/etc/passwd",
    "a/b",
    "a b",
    "a\n",
    "a\0b",
    "$(id)",
    "`id`",
    "a&b",
    "é",
    "x" * 129,
    "y" * 10_000_000,
]


@pytest.mark.parametrize("name", HOSTILE_NAMES, ids=lambda name: name[:20])
def test_hostile_ids_and_file_names_are_refused_wherever_they_stand(name: str) -> None:
    for command in ("want_getJobOutputDir", "getJobOutputDir", "storeJobOutputDir", "jobDone"):
        tree: Tree = {**DONE, "command": command, "outputChirpUrl": "h:1", "jobID": name}
        with pytest.raises(StanzaError, match=r"^jobID: must be letters, digits and"):
            command_of(tree)
    for field in ("id", "command", "validationScript"):
        with pytest.raises(StanzaError, match=rf"^job\.{field}: must be "):
            command_of({"command": "runJob", "job": {**JOB, field: name}})
    with pytest.raises(StanzaError, match=r"^job\.inputFiles\[1\]: must be a plain file name"):
        command_of({"command": "runJob", "job": {**JOB, "inputFiles": f"a###{name}"}})


@pytest.mark.parametrize(
    "path",
    ["../..", "a/../b", "a/..", "..", ".", "a//b", "a/", "a;b", "a b", "a\n", "x/" * 16 + "x"],
)
def test_hostile_paths_are_refused(path: str) -> None:
    refuse_as_directory(path)
    with pytest.raises(StanzaError, match=r"^requireFile: must be an absolute path"):
        command_of({"command": "have_getJob", "requireFile": f"/{path}"})


@pytest.mark.parametrize("path", ["-rf", "a/-rf", ".__acl", "a/.hidden"])
def test_directories_that_are_options_or_hidden_are_refused(path: str) -> None:
    refuse_as_directory(path)


def refuse_as_directory(path: str) -> None:
    for field in ("inputDir", "outputDir"):
        with pytest.raises(StanzaError, match=rf"^job\.{field}: must be a path"):
            command_of({"command": "runJob", "job": {**JOB, field: path}})
    with pytest.raises(StanzaError, match=r"^outputDir: must be a path"):
        command_of({**DONE, "command": "storeJobOutputDir", "outputDir": path})


@pytest.mark.parametrize("url", ["h", "h:", ":1", "h:1;x", "h:1/..", "-h:1", "h;x:1", "h:123456"])
def test_hostile_servers_are_refused(url: str) -> None:
    with pytest.raises(StanzaError, match=r"^job\.chirpUrl: must be host:port"):
        command_of({"command": "runJob", "job": {**JOB, "chirpUrl": url}})


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({}, "command: is missing"),
        ({"command": ""}, "command: is missing"),
        ({"command": {}}, "command: must be text"),
        ({"command": "x y"}, "command: must be a word of at most 128 signs"),
        ({"command": "runJob"}, "job: is missing"),
        ({"command": "runJob", "job": "HASH"}, "job: must hold named values"),
        ({"command": "redirect", "referral": "a"}, "info: is missing"),
        ({"command": "redirect", "referral": "a", "info": "b"}, "info: must hold named values"),
        ({**DONE, "jobID": {}}, "jobID: must be text"),
        ({**DONE, "exitCode": "x"}, "exitCode: must be a whole number"),
        (
            {**DONE, "exitCode": "-1"},
            "exitCode: must be a wait status, such as 768 for exit code 3",
        ),
        ({**DONE, "agentHost": "a\nb"}, "agentHost: must be one line without control characters"),
        (
            {"command": "reportEventValue", "event": "e", "value": "inf"},
            "value: must be a finite number",
        ),
        ({"command": "want_getJob", "jdl": "x" * 20_000}, "jdl: is longer than 16384 characters"),
    ],
)
def test_a_refusal_names_the_field_and_what_is_wrong(tree: Tree, message: str) -> None:
    with pytest.raises(StanzaError) as refusal:
        command_of(tree)
    assert refusal.value.message == message
    assert refusal.value.errors[0].field == message.partition(":")[0]


FIELDS = ["jobID", "exitCode", "jdl", "job", "info", "referral", "requireFile", "id", "inputFiles"]
wild = st.dictionaries(st.sampled_from(FIELDS) | names, anything | trees, max_size=6)


@given(st.sampled_from([*COMMANDS, "x"]), wild)
def test_any_values_are_a_command_or_a_refusal(name: str, values: Tree) -> None:
    try:
        command = command_of({**values, "command": name})
    except StanzaError as refusal:
        assert refusal.errors[0].field
    else:
        assert command_of(info_of(command)) == command


@given(asking)
def test_a_command_that_an_agent_sends_again_is_the_same(command: Command) -> None:
    again = read_envelope(parse_stanza(sent_again(Envelope(id="1", info=info_of(command)))))
    assert again.info is not None
    assert command_of(again.info) == command


def test_a_machine_is_understood_within_its_command() -> None:
    got = command_of({"command": "getJob", "jdl": "[ Memory=512; ]"})
    assert got == job.GetJob(machine=Machine(memory_mib=512, others={}))
