"""A job in the original's words means what its specification says: a real shell reads it."""

import hashlib
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from copilot_agent.protocol.copilot1.commands import command_of, info_of
from copilot_agent.protocol.copilot1.envelope import Envelope
from copilot_agent.protocol.copilot1.errors import StanzaError
from copilot_agent.protocol.copilot1.parsing import MAX_STANZA, stanza_bytes
from copilot_agent.protocol.job import JobSpec
from job_manager_adapter.core.copilot1.running import SCRIPT, Place, Running, running

PLACE = Place("j-1.1.abc", "chirp.test:9094", "in-j-1.1.def")
SHOW = b'#!/bin/sh\nfor word in "$@"; do printf "%s\\0" "$word"; done\nprintf "%s\\0" "$V"\n'
VALUES = st.text(st.characters(min_codepoint=1, exclude_categories=["Cs"]), max_size=40)


def spec(*command: str, **fields: object) -> JobSpec:
    return JobSpec.model_validate({"experiment": "demo", "command": command, **fields})


def given_file(name: str, content: bytes = SHOW, **more: object) -> dict[str, object]:
    digest = hashlib.sha256(content).hexdigest()
    return {"name": name, "sha256": digest, "size": len(content), **more}


def run(found: Running, contents: dict[str, bytes], directory: Path) -> bytes:
    """As the original agent does it: everything is pasted into a script."""
    job = found.run.job
    by_hash = {hashlib.sha256(content).hexdigest(): content for content in contents.values()}
    for name, sha256 in found.files.items():
        (directory / name).write_bytes(by_hash[sha256])
    if found.script:
        (directory / SCRIPT).write_text(found.script)
    wrapper = directory / "_wrapper_.sh"
    wrapper.write_text(
        f"#!/bin/sh\n{job.environment}\ncd {directory}\nchmod a+x {job.command}\n"
        f"./{job.command} {job.arguments}\n"
    )
    line = f"cd {directory} && chmod a+x {wrapper} && . {wrapper}"
    return subprocess.run(["/bin/sh", "-c", line], check=True, capture_output=True).stdout


@settings(
    max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)
@given(st.lists(VALUES, max_size=3), VALUES, st.booleans())
def test_arguments_and_variables_arrive_as_they_are(
    tmp_path: Path, words: list[str], value: str, plain: bool
) -> None:
    inputs = [given_file("show.sh" if plain else "bin/show.sh")]
    program = f"./{inputs[0]['name']}"
    job = spec(program, *words, inputs=inputs, environment={"V": value})
    shown = run(running(job, PLACE, 0), {"show.sh": SHOW}, _empty(tmp_path))
    assert shown.decode(errors="surrogateescape").split("\0")[:-1] == [*words, value]


def _empty(directory: Path) -> Path:
    for path in (directory / "bin", directory):
        for file in path.glob("*"):
            if file.is_file():
                file.unlink()
    return directory


def test_simple_jobs_use_the_originals_own_fields() -> None:
    inputs = [given_file("sim.sh"), given_file("cards.dat", b"1")]
    job = spec("./sim.sh", "a b", inputs=inputs, environment={"E": "7 TeV"})
    found = running(job, PLACE, 1795356972.6)
    assert not found.script
    assert info_of(found.run) == {
        "command": "runJob",
        "jmJobData": "startedAt=1795356972####",
        "job": {
            "id": "j-1.1.abc",
            "chirpUrl": "chirp.test:9094",
            "inputDir": "in-j-1.1.def",
            "inputFiles": "sim.sh###cards.dat",
            "command": "sim.sh",
            "arguments": "'a b'",
            "environment": "export E='7 TeV'",
            "packages": "",
        },
    }
    assert command_of(info_of(found.run)) == found.run


def test_packages_and_validation_have_fields_of_their_own() -> None:
    environment = {
        "COPILOT1_PACKAGES": "VO_ALICE@AliRoot::v4-16-Rev-01  VO_ALICE@ROOT::v5",
        "COPILOT1_VALIDATION_SCRIPT": "val.sh",
    }
    inputs = [given_file("sim.sh"), given_file("val.sh")]
    job = running(spec("./sim.sh", inputs=inputs, environment=environment), PLACE, 0).run.job
    assert job.packages == ("VO_ALICE@AliRoot::v4-16-Rev-01", "VO_ALICE@ROOT::v5")
    assert (job.validation_script, job.environment) == ("val.sh", "")


@pytest.mark.parametrize(
    ("variable", "field"),
    [("COPILOT1_PACKAGES", "packages"), ("COPILOT1_VALIDATION_SCRIPT", "validation")],
)
def test_what_would_become_a_command_is_refused(variable: str, field: str) -> None:
    with pytest.raises(StanzaError, match=field):
        running(spec("/bin/true", environment={variable: "$(reboot)"}), PLACE, 0)


def test_a_file_from_elsewhere_is_checked(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"another content\n")
    fetched = given_file("data.txt", b"expected\n", url="https://files.test/data.txt")
    found = running(spec("cat", "data.txt", inputs=[fetched]), PLACE, 0)
    assert not found.files, "the agent's machine fetches it"
    curl = tmp_path / "bin" / "curl"
    curl.parent.mkdir()
    curl.write_text(f'#!/bin/sh\ncp {source} "$3"\n')
    curl.chmod(0o755)
    work = tmp_path / "work"
    work.mkdir()
    (work / SCRIPT).write_text(found.script)
    line, path = ["/bin/sh", SCRIPT], {"PATH": f"{curl.parent}:/usr/bin:/bin"}
    ended = subprocess.run(line, check=False, capture_output=True, cwd=work, env=path)
    assert (ended.returncode, ended.stdout) == (96, b"")
    assert "another data.txt" in (work / "_copilot_stage_in_").read_text()
    source.write_bytes(b"expected\n")
    ended = subprocess.run(line, check=True, capture_output=True, cwd=work, env=path)
    assert ended.stdout == b"expected\n"


def test_the_largest_job_fits_into_a_stanza() -> None:
    inputs = [given_file(f"directory/{number:0100d}") for number in range(255)]
    words, environment = ["x" * 4096] * 200, {f"V{n}": "y" * 4096 for n in range(100)}
    found = running(spec("tool", *words, inputs=inputs, environment=environment), PLACE, 0)
    envelope = Envelope(
        recipient="agent@copilot.test/" + "r" * 1000, id="1", info=info_of(found.run)
    )
    assert len(stanza_bytes(envelope)) < MAX_STANZA
