"""The harness itself: the real client at a project of ours, with the smallest application."""

from __future__ import annotations

import gzip
import re
from pathlib import Path

from tests.harness.boinc.client import BoincClient, boinc_client
from tests.harness.boinc.project import BoincProject, boinc_project
from tests.harness.boinc.tiny_project import APP, APP_INFO, PROGRAM, program, tiny_project
from tests.harness.boinc.work import Report

ABORTED_BY_USER = 203
DOWNLOAD_FAILED = -186


def worth(report: Report) -> float | None:
    """A validator: what was uploaded decides."""
    words = report.files["receipts"].read_text().split()
    return 12.25 if words == ["hello", "<thanks/>", "done"] else None


async def test_a_task_from_attach_to_credit(tmp_path: Path) -> None:
    root = tiny_project(tmp_path / "project")
    async with (
        boinc_project(root, validate=worth) as project,
        boinc_client(tmp_path / "client") as client,
    ):
        project.create_work(
            "wu_1", {"greeting_1": b"hello "}, app=APP, command_line="seconds=3 trickle"
        )
        await client.boinccmd("--project_attach", project.url, project.authenticator)
        task = await client.task_running("wu_1")
        project.send_trickle(task.name, "<thanks/>")
        await the_layer_came_compressed_and_is_whole(project, client)
        await it_stands_while_suspended(client, project.url, task.name)
        trickle = await project.trickle()
        assert (trickle.variety, trickle.number("runtime")) == ("copilot_runtime", 12.5)
        report = await project.reported("wu_1")
        await client.task_gone("wu_1")
        assert report.succeeded
        assert report.cpu_seconds == 3.0
        assert "tiny application starts" in report.stderr
        assert "host_total_credit: 12.25" in await client.boinccmd("--get_project_status")
        await client.nothing_left()
        assert not client.slots()


async def the_layer_came_compressed_and_is_whole(
    project: BoincProject, client: BoincClient
) -> None:
    assert "layer_1.gz" in project.downloads
    assert "layer_1" not in project.downloads
    sent = (project.directory / "download_gzip" / "layer_1.gz").read_bytes()
    here = client.project_directory(project.url) / "layer_1"
    assert here.read_bytes() == gzip.decompress(sent)


async def it_is_given_up(client: BoincClient, url: str, name: str) -> None:
    """And reported at once: by itself a client waits a minute or two after an error."""
    await client.task(name, lambda task: task.ready_to_report, "ready to report")
    await client.project(url, "update")


async def it_stands_while_suspended(client: BoincClient, url: str, name: str) -> None:
    await client.task(name, lambda task: task.fraction_done > 0, "makes progress")
    assert re.search(r"fraction done: 0\.0*[1-9]", await client.boinccmd("--get_tasks"))
    await client.prefer(leave_apps_in_memory=1)
    await client.boinccmd("--task", url, name, "suspend")
    task = await client.task(name, lambda task: task.process == "suspended", "suspended")
    assert task.pid
    await client.boinccmd("--task", url, name, "resume")
    resumed = await client.task_running(name)
    assert resumed.pid == task.pid


async def test_an_application_of_the_volunteers_own_aborted(tmp_path: Path) -> None:
    root, litter = tiny_project(tmp_path / "project"), tmp_path / "client" / "tmp" / "litter"
    async with boinc_project(root) as project:
        words = f"seconds=1000 touch={litter}"
        project.create_work("wu_2", {"greeting_2": b""}, app=APP, command_line=words)
        client = BoincClient(tmp_path / "client", attached=(project.url, project.authenticator))
        client.install_application(project.url, APP_INFO, {"mine.py": program()})
        async with client:
            task = await client.task_running("wu_2")
            assert PROGRAM not in project.downloads
            await client.task("wu_2", lambda task: task.fraction_done > 0, "makes progress")
            assert [one.pid for one in client.leftovers().processes] == [task.pid]
            await client.order(task, "abort")
            await it_is_given_up(client, project.url, "wu_2")
            report = await project.reported("wu_2")
            assert report.exit_status == ABORTED_BY_USER
            left = client.leftovers()
            assert (left.processes, left.locks, left.files) == ((), (), (litter,))


async def test_a_program_with_a_wrong_signature_never_runs(tmp_path: Path) -> None:
    root = tiny_project(tmp_path / "project")
    async with boinc_project(root) as project:
        project.faults.wrong_signatures.add(PROGRAM)
        project.create_work("wu_3", {"greeting_3": b""}, app=APP)
        known = (project.url, project.authenticator)
        async with boinc_client(tmp_path / "client", attached=known) as client:
            await client.message(f"Signature verification error for {PROGRAM}")
            task = await client.task("wu_3", lambda task: task.ready_to_report, "given up")
            assert task.exit_status == DOWNLOAD_FAILED
            assert not client.slots()


async def test_a_client_that_is_killed_leaves_its_task_and_that_is_seen(tmp_path: Path) -> None:
    root = tiny_project(tmp_path / "project")
    async with boinc_project(root) as project:
        project.create_work("wu_4", {"greeting_4": b""}, app=APP, command_line="seconds=1000")
        known = (project.url, project.authenticator)
        async with boinc_client(tmp_path / "client", attached=known) as client:
            task = await client.task_running("wu_4")
            await client.kill9()
            assert [one.pid for one in client.leftovers().processes] == [task.pid]
        assert not client.leftovers().processes
