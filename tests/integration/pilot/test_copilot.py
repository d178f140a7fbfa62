"""The `copilot` command as a program, on a real manager with a real pilot."""

import asyncio
import json
import os
import signal
from asyncio.subprocess import Process
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from copilot_agent.protocol.job import JobState
from job_manager_adapter.views import PilotView
from tests.harness import programs
from tests.integration.pilot.conftest import Gate, Setting

pytestmark = pytest.mark.asyncio(loop_scope="module")

JOB_FILE = """
experiment = "demo"
name = "square-{number}"
command = ["/bin/sh", "calc.sh", "{number}"]
inputs = [{ path = "calc.sh" }]
outputs = [{ name = "square" }]
requirements = { memory_mib = 64, disk_mib = 16 }
labels = { campaign = "squares" }
sweep = { number = [3, 4] }
"""


@dataclass
class Said:
    code: int
    output: str
    complaint: str

    @property
    def data(self) -> Any:
        return json.loads(self.output)


async def copilot(setting: Setting, *words: str, token: str | None = None) -> Said:
    """Run the command; neither output ever shows a traceback."""
    return await ending(await start(setting, *words, token=token))


async def start(setting: Setting, *words: str, token: str | None = None) -> Process:
    return await asyncio.create_subprocess_exec(
        str(programs.TOOLS / "copilot"),
        *words,
        env={
            **os.environ,
            "COPILOT_URL": setting.manager.url,
            "COPILOT_TOKEN": token or setting.manager.token,
        },
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def ending(process: Process) -> Said:
    output, complaint = await process.communicate()
    said = Said(process.returncode or 0, output.decode(), complaint.decode())
    assert "Traceback" not in said.output + said.complaint
    return said


async def test_a_sweep_from_a_file_comes_back(shared: Setting, tmp_path: Path) -> None:
    (tmp_path / "calc.sh").write_text("echo $(($1 * $1)) >square; echo computed $1\n")
    (tmp_path / "squares.toml").write_text(JOB_FILE)
    results = tmp_path / "results"
    file = str(tmp_path / "squares.toml")
    said = await copilot(shared, "job", "submit", file, "--wait", "--fetch", str(results))
    assert said.code == 0, said.complaint
    assert "submitted 2 jobs" in said.output
    assert "2 succeeded, 0 did not" in said.complaint
    assert sorted(path.read_text() for path in results.glob("*/square")) == ["16\n", "9\n"]
    listed = await copilot(shared, "job", "list", "--label", "campaign=squares", "--output", "json")
    assert {job["name"] for job in listed.data} == {"square-3", "square-4"}
    job = listed.data[0]["id"]
    logs = await copilot(shared, "job", "logs", job)
    assert logs.output.startswith("computed ")
    again = tmp_path / "again"
    assert (await copilot(shared, "job", "fetch", job, "--directory", str(again))).code == 0
    assert sorted(path.name for path in (again / job).iterdir()) == [
        "square",
        "stderr.log",
        "stdout.log",
    ]


async def test_a_dry_run_stores_nothing(shared: Setting) -> None:
    before = (await shared.client.jobs.counts()).counts
    words = ("job", "submit", "--experiment", "demo", "--array", "1-50", "--dry-run")
    said = await copilot(shared, *words, "--", "echo", "{array}")
    assert said.code == 0
    assert "50 jobs" in said.output
    assert (await shared.client.jobs.counts()).counts == before


async def test_the_same_key_submits_nothing_twice(shared: Setting) -> None:
    key = ("--idempotency-key", "shell-history-1", "--memory", "64", "--disk", "16")
    words = ("job", "submit", "--experiment", "demo", *key, "--output", "quiet", "--", "/bin/true")
    first, second = await copilot(shared, *words), await copilot(shared, *words)
    assert first.output == second.output
    assert first.output.startswith("j-")


async def test_a_failed_job_says_why_and_what_next(shared: Setting) -> None:
    words = ("job", "submit", "--experiment", "demo", "--max-attempts", "1", "--wait")
    said = await copilot(shared, *words, "--", "/bin/sh", "-c", "exit 3")
    assert said.code == 1
    assert "exited with code 3" in said.complaint
    assert "copilot job show j-" in said.complaint
    job = next(word for word in said.complaint.split() if word.startswith("j-")).strip(":;")
    shown = await copilot(shared, "job", "show", job, "--output", "json")
    assert shown.data["attempts"][0]["exit_code"] == 3
    dead = await copilot(shared, "job", "list", "--dead")
    assert job in dead.output and "exited with code 3" in dead.output
    assert (await copilot(shared, "job", "retry", job, "--output", "quiet")).output == f"{job}\n"
    await shared.ended(job)
    revived = await copilot(shared, "job", "retry", "--dead", "--batch", shown.data["batch"])
    assert revived.output == f"{job} waiting again\n"
    assert (await shared.ended(job)).state is JobState.FAILED
    assert (await copilot(shared, "job", "retry")).code == 1


async def test_a_program_that_waits_is_told_how_all_jobs_ended(shared: Setting) -> None:
    words = ("job", "submit", "--experiment", "demo", "--wait", "--output", "json")
    said = await copilot(shared, *words, "--", "/bin/true")
    assert [job["state"] for job in said.data["ended"]] == ["succeeded"]
    assert said.data["jobs"] == [job["id"] for job in said.data["ended"]]
    shown = await copilot(shared, "job", "show", said.data["jobs"][0])
    assert "1 of 3 used\n" in shown.output


async def test_who_stops_watching_hears_that_the_job_goes_on(shared: Setting, gate: Gate) -> None:
    process = await start(
        shared, "job", "submit", "--experiment", "demo", "--wait", "--", *gate.command
    )
    await gate.runs()
    process.send_signal(signal.SIGINT)
    said = await ending(process)
    assert said.code == 130
    job = said.output.split()[-1]
    assert f"1 job goes on → copilot job wait {job}" in said.complaint
    gate.open()
    assert (await shared.ended(job)).state is JobState.SUCCEEDED


async def test_explain_and_cancel_a_job_that_fits_nowhere(shared: Setting) -> None:
    words = ("job", "submit", "--experiment", "demo", "--cores", "200", "--output", "quiet")
    job = (await copilot(shared, *words, "--", "/bin/true")).output.strip()
    told = await copilot(shared, "job", "explain", job)
    assert "200" in told.output
    assert (await copilot(shared, "job", "cancel", job)).code == 0
    assert (await shared.client.jobs.show(job)).state is JobState.CANCELLED
    refused = await copilot(shared, "job", "cancel", job)
    assert refused.code == 1
    assert "left alone" in refused.output


async def test_logs_are_followed_to_the_end(shared: Setting, gate: Gate) -> None:
    script = 'echo begun; /bin/sh -c "$@"; echo done'
    job = await shared.submit("/bin/sh", "-c", script, "x", *gate.command[2:])
    await gate.runs()
    following = asyncio.create_task(copilot(shared, "job", "logs", job, "--follow"))
    gate.open()
    assert (await following).output == "begun\ndone\n"


async def alive(shared: Setting) -> PilotView:
    """The setting's own pilot, once it is there."""

    async def is_there() -> bool:
        return bool((await shared.client.pilots.list(state="alive")).items)

    await programs.eventually(is_there, 20, "a pilot that is alive")
    return (await shared.client.pilots.list(state="alive")).items[0]


async def test_an_operator_drains_and_bans(shared: Setting) -> None:
    pilot = (await alive(shared)).id
    assert (await copilot(shared, "pilot", "drain", pilot, "--deadline", "1h")).code == 0
    shown = await copilot(shared, "pilot", "show", pilot, "--output", "json")
    assert shown.data["state"] == "draining"
    fleet = await copilot(shared, "fleet", "show")
    assert f"drain of {pilot}" in fleet.output and "deadline in 59 min" in fleet.output
    undone = await copilot(shared, "pilot", "undrain", pilot)
    assert (undone.code, undone.output) == (0, f"{pilot} takes jobs again\n")
    async with programs.agent(shared.manager, "guest") as other:

        async def strangers() -> list[dict[str, Any]]:
            pilots = (await copilot(shared, "pilot", "list", "--output", "json")).data
            return [one for one in pilots if one["id"] != pilot and one["state"] == "alive"]

        await programs.eventually(strangers, 20, "the other pilot")
        stranger = (await strangers())[0]
        host = stranger["host"]
        ban = await copilot(shared, "host", "ban", host, "--reason", "cheats")
        assert ban.code == 0, ban.complaint
        process = other.process
        assert process is not None
        await programs.eventually(lambda: not process.running, 20, "the banned agent's end")
        hosts = (await copilot(shared, "host", "list", "--output", "json")).data
        assert [one["ban_reason"] for one in hosts if one["banned"]] == ["cheats"]
    assert (await copilot(shared, "host", "ban", host, "--undo")).code == 0


async def test_an_operator_drains_a_host_and_the_fleet(shared: Setting) -> None:
    pilot = await alive(shared)
    assert (await copilot(shared, "fleet", "drain", "--output", "quiet")).output == "fleet\n"
    said = await copilot(shared, "host", "drain", pilot.host)
    assert "drains" in said.output
    job = await shared.submit("/bin/true")
    said = await copilot(shared, "job", "explain", job)
    assert "copilot fleet show" in said.output, said.output
    said = await copilot(shared, "host", "undrain", pilot.host)
    assert "the fleet was asked to" in said.output
    said = await copilot(shared, "fleet", "undrain")
    assert said.output == "the fleet takes jobs again\n"
    assert (await shared.ended(job)).state is JobState.SUCCEEDED


async def test_an_experiment_is_refused_what_operators_do(shared: Setting) -> None:
    token = await shared.manager.user_token("experiment", "other")
    said = await copilot(shared, "pilot", "list", token=token)
    assert (said.code, said.output) == (1, "")
    assert "operator" in said.complaint
    job = await shared.submit("/bin/true")
    hidden = await copilot(shared, "job", "show", job, token=token)
    assert (hidden.code, hidden.output) == (1, "")


@pytest.mark.parametrize("mode", ["table", "json", "quiet"])
@pytest.mark.parametrize(
    "words", [("job", "list"), ("pilot", "list"), ("host", "list"), ("whoami",)]
)
async def test_every_list_has_every_output_mode(
    shared: Setting, words: tuple[str, ...], mode: str
) -> None:
    await shared.ended(await shared.submit("/bin/true"))
    said = await copilot(shared, *words, "--output", mode)
    assert said.code == 0
    assert said.output.strip()
    if mode == "json":
        assert said.data
    if mode == "quiet" and words[0] != "whoami":
        assert all(line[1] == "-" and " " not in line for line in said.output.splitlines())
