"""Everything at once: a manager, a BOINC project with our application, and a volunteer's client."""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from copilot_agent.protocol.ids import JobId
from copilot_agent.protocol.receipt import Receipt
from deploy.demo.processes import call
from tests.harness import programs, sockets
from tests.harness.boinc.client import BoincClient
from tests.harness.boinc.gui_rpc import GuiRpcError
from tests.harness.boinc.patience import until
from tests.harness.boinc.project import BoincProject, boinc_project
from tests.harness.boinc.settings import Preferences
from tests.harness.boinc.tasks import Task
from tests.harness.boinc.work import Report
from tests.harness.boinc.xml import block, flags, line
from tests.harness.jobs import Jobs
from tests.harness.programs import ManagerProgram
from vm_launcher.state import Status

log = logging.getLogger(__name__)

TOOLS = Path(sys.executable).parent
RECEIPT_CHECK = Path(__file__).resolve().parents[3] / "deploy" / "boinc" / "receipt-check"
BOOT_SECONDS = 150.0
VM = "[vm]\nmemory_mib = 384\ndisk_mib = 512\n"
"""Settings of a small one."""
_BUSY = """
read now _ </proc/uptime; end=$((${now%%.*} + %d))
while [ "${now%%.*}" -lt "$end" ]; do read now _ </proc/uptime; done
"""


@dataclass
class World(Jobs):
    """`client` is the experiment's, for jobs; `volunteer` is BOINC's."""

    home: Path
    manager: ManagerProgram
    project: BoincProject
    volunteer: BoincClient

    async def work(self, results: int = 1) -> list[str]:
        """A workunit with an enrolment of its own; the names of its results."""
        words = ("enrolment", "create", "--launchers", str(results), "--output", "json")
        (made,) = json.loads(await call((*self.manager.command, *words)))
        name = f"enrolment_{secrets.token_hex(8)}"
        inputs = {name: f"{made['secret']}\n".encode()}
        names = self.project.create_work(f"copilot_{made['id']}", inputs, results=results)
        with suppress(GuiRpcError):  # not attached yet
            # a client that asked before and got nothing waits minutes by itself
            await self.volunteer.project(self.project.url, "update")
        return names

    async def busy(self, seconds: int) -> JobId:
        """A job that keeps its processor busy for so long, not counting its VM's pauses."""
        return await self.submit("/bin/sh", "-c", _BUSY % seconds)

    async def finished(self, name: str, seconds: float = 120.0) -> Report:
        """The task is to end with the jobs that it has: its report, with the credit granted."""
        self.project.send_trickle(name, "<finish/>")
        await self.volunteer.project(self.project.url, "update")
        report = await self.project.reported(name, seconds)
        assert report.succeeded, report.stderr
        await self.volunteer.task_gone(name)
        return report

    async def started(self, name: str = "", seconds: float = 120.0) -> Task:
        """Once the client runs it and its launcher has something to say."""
        task = await self.volunteer.task_running(name, seconds)
        await programs.eventually(lambda: self.status(task).pid, 30, "the launcher's status")
        return task

    def status(self, task: Task) -> Status:
        """What the task's launcher says; empty before it does."""
        path = self.volunteer.slot(task) / "launcher" / "status.json"
        try:
            return Status.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            return Status()

    async def guest(self, task: Task, word: str, seconds: float = BOOT_SECONDS) -> Status:
        return await self.says(task, lambda status: status.guest_state == word, seconds)

    async def vm(self, task: Task, word: str, seconds: float = 30.0) -> Status:
        return await self.says(task, lambda status: status.state == word, seconds)

    async def says(
        self, task: Task, true: Callable[[Status], bool], seconds: float = 30.0
    ) -> Status:
        """The task's launcher, while it runs."""

        async def there() -> Status | None:
            if (report := self.project.result(task.name).report) is not None:
                raise AssertionError(f"it has ended with {report.exit_status}")
            status = self.status(task)
            return status if true(status) else None

        return await until(there, "what the launcher should say", seconds)

    async def pilot(self, status: Status, state: str, seconds: float = 20.0) -> None:
        """Until the manager sees the launcher's pilot so."""

        async def there() -> bool:
            pilots = (await self.client.pilots.list()).items
            return any((each.id, each.state) == (status.pilot, state) for each in pilots)

        await until(there, f"pilot {status.pilot} {state}", seconds)

    async def stays(self, job: JobId, state: str, seconds: float) -> None:
        """In its first attempt, for so long."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            view = await self.client.jobs.show(job)
            assert (view.state, view.attempt) == (state, 1)
            await asyncio.sleep(0.2)

    def connections(self, task: Task) -> int:
        """Of the task's launcher to the manager."""
        return sockets.connections(task.pid, self.manager.port)

    def hypervisors(self) -> list[int]:
        """Of this volunteer's tasks: they hold a file below its slots open."""
        return [pid for pid in _qemus() if _holds(pid, self.volunteer.root)]

    async def clean(self, seconds: float = 15.0) -> None:
        """No VM, no process, no lock and no file outside the slots is left of any task."""
        await self.volunteer.nothing_left(seconds)
        assert not self.hypervisors()

    def said(self) -> str:
        """By all launchers, in files and reports."""
        slots = self.volunteer.data.glob("slots/*/stderr.txt")
        texts = [path.read_text(errors="replace") for path in slots]
        results = self.project.shelf.results.values()
        return "\n".join([*texts, *(one.report.stderr for one in results if one.report)])

    def receipts(self, report: Report) -> list[Receipt]:
        lines = report.files["receipts"].read_text().splitlines()
        return [Receipt.model_validate_json(line) for line in lines]


def _qemus() -> list[int]:
    found = []
    for entry in Path("/proc").glob("[0-9]*/comm"):
        try:
            if entry.read_text().startswith("qemu-system") and programs.alive(int(entry.parts[2])):
                found.append(int(entry.parts[2]))
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


def _holds(pid: int, directory: Path) -> bool:
    for link in Path(f"/proc/{pid}/fd").glob("*"):
        try:
            if str(link.readlink()).startswith(str(directory)):
                return True
        except OSError:
            continue
    return False


class Validator:
    """What a project's script_validator and credit daemon do, with the same program."""

    def __init__(self, manager_key: str, ledger: Path) -> None:
        self._words = (f"--manager-key={manager_key}", "--ledger", str(ledger))
        self.said: list[str] = []

    def __call__(self, report: Report) -> float | None:
        files = [str(path) for path in report.files.values()]
        command = [sys.executable, str(RECEIPT_CHECK), *self._words, "--print-credit", *files]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        self.said.append(done.stdout + done.stderr)
        return float(done.stdout) if done.returncode == 0 else None


@asynccontextmanager
async def world(
    home: Path,
    application: Path,
    *,
    settings: str = "",
    without: Sequence[str] = (),
    preferences: Preferences | None = None,
    ncpus: int = 1,
    attached: bool = True,
    lease_seconds: float = 120.0,
    volunteer_home: Path | None = None,
    anonymous: bool = False,
    environment: Mapping[str, str] | None = None,
    user: str | None = None,
) -> AsyncIterator[World]:
    """`application` is a project's directory that holds it.

    `settings` go into launcher.toml, `without` names flags that version.xml is not to have.
    `anonymous`: the volunteer has the application already, on the anonymous platform.
    `environment` and `user` are the client's.
    """
    async with AsyncExitStack() as stack:
        manager = await stack.enter_async_context(
            programs.manager(home / "manager", lease_seconds=lease_seconds)
        )
        client = await stack.enter_async_context(programs.client(manager))
        key = (await client.credit.total()).manager_key
        directory = home / "project"
        toml = f'manager = "{manager.url}"\nmanager_keys = ["{key}"]\n{settings}'
        await asyncio.to_thread(_copy_application, application, directory, toml, without)
        validator = Validator(key, home / "ledger.sqlite")
        project = await stack.enter_async_context(boinc_project(directory, validate=validator))
        volunteer = BoincClient(
            volunteer_home or home / "volunteer",
            options={"ncpus": ncpus},
            preferences=preferences,
            attached=(project.url, project.authenticator) if attached else None,
            environment=environment,
            user=user,
        )
        if anonymous:
            _install(volunteer, project)
        await stack.enter_async_context(volunteer)
        made = World(client, home, manager, project, volunteer)
        try:
            yield made
        except BaseException:
            log.error("%s", made.said())
            raise


def _install(volunteer: BoincClient, project: BoincProject) -> None:
    """What a volunteer writes who builds the application: app_info.xml, and the files."""
    (version,) = project.shelf.versions
    infos = (
        block(
            "file_info",
            line("name", file.physical_name),
            flags(["executable"] if file.main_program else []),
        )
        for file in version.files
    )
    described = block(
        "app_version",
        line("app_name", version.app_name),
        line("version_num", version.number),
        line("api_version", version.api_version),
        line("avg_ncpus", 1),
        *(file.reference() for file in version.files),
        flags(version.flags),
    )
    app_info = block("app_info", block("app", line("name", version.app_name)), *infos, described)
    files = {file.physical_name: file.path.read_bytes() for file in version.files}
    volunteer.install_application(project.url, app_info, files)


def _copy_application(
    application: Path, directory: Path, settings: str, without: Sequence[str]
) -> None:
    shutil.copytree(application, directory)
    (settings_file,) = directory.glob("apps/copilot/*/*/copilot_launcher_*.toml")
    settings_file.write_text(settings)
    version = settings_file.with_name("version.xml")
    text = version.read_text()
    for flag in without:
        text = text.replace(f"<{flag}/>", "")
    version.write_text(text)
