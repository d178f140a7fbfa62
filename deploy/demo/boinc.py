"""The real BOINC client starts the launcher, as on a volunteer's PC, for a project on loopback.

The project's server is the tests' own (`tests/harness/boinc`), no stock BOINC server; what it
serves is put together by the same command as for a real project.
"""

import asyncio
import json
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

from copilot_agent.protocol.errors import CopilotError
from deploy.demo.display import Scene
from deploy.demo.host import Finished, Ground, Host
from deploy.demo.processes import TOOLS, call
from deploy.demo.summary import BoincFacts
from deploy.demo.task import start_to_vm_seconds, task_words, trouble
from deploy.demo.vm import read_status
from tests.harness.boinc.client import BoincClient
from tests.harness.boinc.gui_rpc import GuiRpcError
from tests.harness.boinc.project import BoincProject, boinc_project, processors
from tests.harness.boinc.tasks import Task
from tests.harness.boinc.world import Validator
from vm_launcher.boinc.play import FINISH_WORD
from vm_launcher.state import Status

T = TypeVar("T")

_PROGRAM = Path("/usr/bin/boinc")
_RECEIPTS_SECONDS = 30.0
_REPORT_SECONDS = 240.0
_FORGET_SECONDS = 60.0


class BoincHost:
    def __init__(
        self, ground: Ground, project: BoincProject, client: BoincClient, result: str
    ) -> None:
        self._ground = ground
        self._project = project
        self._client = client
        self._result = result
        self._task: Task | None = None
        self._status = Status()
        self._start_seconds: float | None = None

    def check(self) -> None:
        if not self._client.running:
            raise CopilotError("the BOINC client ended", remedy=f"see {self._client.log}")
        if self._task is not None and (words := trouble(self._task)):
            raise CopilotError(words, remedy=f"see {self._ground.logs / 'launcher.log'}")

    async def look(self, scene: Scene) -> Status:
        tasks = await _asked(self._client, self._client.tasks)
        self._task = next((task for task in tasks if task.name == self._result), None)
        scene.boinc, scene.boinc_details = task_words(
            self._task, reported=self._report_is_here, credit=self._project.credit
        )
        if self._task is not None and self._task.pid:
            self._read(self._task, self._client.slot(self._task) / "launcher")
        return self._status

    def _read(self, task: Task, state: Path) -> None:
        if (status := read_status(state / "status.json")).pid:  # empty when the slot is cleared
            self._status = status
        if self._start_seconds is None:
            self._start_seconds = start_to_vm_seconds(task.pid, state)

    @property
    def _report_is_here(self) -> bool:
        return self._project.result(self._result).report is not None

    async def finish(self, receipts: int) -> Finished:
        """The project asks for the task's end and gets what it has earned."""
        say = self._ground.display.step
        await self._until(
            lambda: self._status.receipts >= receipts, _RECEIPTS_SECONDS, "all receipts"
        )
        say("the project asks the task to end")
        self._project.send_trickle(self._result, FINISH_WORD)
        await _asked(self._client, lambda: self._client.project(self._project.url, "update"))
        await self._until(lambda: self._report_is_here, _REPORT_SECONDS, "the task's report")
        say("checked, granted and acknowledged")
        await self._until(lambda: self._task is None, _FORGET_SECONDS, "the client's last word")
        return self._paid()

    def _paid(self) -> Finished:
        result = self._project.result(self._result)
        report, granted = result.report, result.granted
        if report is None or not report.succeeded:
            raise CopilotError("the task was not reported as a success")
        if granted is None:
            raise CopilotError("the project refused the receipts", remedy="see receipt-check.log")
        facts = BoincFacts(
            boinc_exit_status=report.exit_status,
            boinc_cpu_seconds=round(report.cpu_seconds, 3),
            boinc_elapsed_seconds=round(report.elapsed_seconds, 3),
            boinc_credit_granted=granted,
            boinc_start_to_vm_seconds=self._start_seconds,
        )
        return Finished(report.files["receipts"].read_text().splitlines(), facts)

    async def _until(self, true: Callable[[], bool], seconds: float, what: str) -> None:
        deadline = time.monotonic() + seconds
        while not true():
            self.check()
            if time.monotonic() > deadline:
                raise CopilotError(f"{what} did not come within {seconds:.0f} s")
            await asyncio.sleep(0.2)
            await self.look(self._ground.display.scene)
            self._ground.display.update()


async def _asked(client: BoincClient, ask: Callable[[], Awaitable[T]]) -> T:
    try:
        return await ask()
    except (OSError, GuiRpcError) as error:
        raise CopilotError(f"the BOINC client: {error}", remedy=f"see {client.log}") from None


@asynccontextmanager
async def boinc_host(ground: Ground) -> AsyncIterator[Host]:
    """Project and client; nothing of either is left when the block ends."""
    key = (await ground.client.credit.total()).manager_key
    directory = await _application(ground, key)
    validator = Validator(key, ground.work / "ledger.sqlite")
    cpus = ground.options.cpus
    usage = processors(cpus, f"--nthreads {cpus}")
    async with boinc_project(directory, validate=validator, usage=usage) as project:
        (result,) = await _workunit(ground, project)
        async with _client(ground) as client:
            ground.display.step(f"attaching to {project.url}")
            await client.attach(project.url, project.authenticator)
            try:
                yield BoincHost(ground, project, client, result)
            finally:
                _keep_logs(ground, project, client, validator)


async def _application(ground: Ground, manager_key: str) -> Path:
    """A project's directory, with the launcher and the image as an application in it."""
    ground.display.step("putting the application together")
    directory, options = ground.work / "project", ground.options
    directory.mkdir()
    (directory / "config.xml").write_text("<boinc></boinc>\n")
    await call(
        (
            *(str(TOOLS / "vm-launcher"), "boinc-project", str(directory)),
            *("--launcher", str(options.cache / "launcher" / "vm-launcher")),
            *("--image", str(ground.image), "--manager", ground.url),
            f"--manager-key={manager_key}",
            *("--cpus", str(options.cpus), "--memory", str(options.memory_mib)),
            *ground.launcher_options,
        )
    )
    return directory


async def _workunit(ground: Ground, project: BoincProject) -> list[str]:
    """Named after its enrolment, whose secret is its input."""
    words = ("enrolment", "create", "--expires", "1d", "--label", "host=1 user=1")
    (made,) = json.loads(await call((*ground.manager, *words, "--output", "json")))
    inputs = {f"enrolment_{secrets.token_hex(8)}": f"{made['secret']}\n".encode()}
    return project.create_work(f"copilot_{made['id']}", inputs)


@asynccontextmanager
async def _client(ground: Ground) -> AsyncIterator[BoincClient]:
    if not _PROGRAM.exists():
        raise CopilotError(f"there is no {_PROGRAM}", remedy="make demo-boinc installs it")
    ground.display.step("starting the BOINC client")
    client = BoincClient(ground.work / "volunteer", options={"ncpus": ground.options.cpus})
    client.log = ground.logs / "boinc-client.log"
    try:
        try:
            await client.start()
        except AssertionError as error:
            words = f"the BOINC client did not start: {error}"
            raise CopilotError(words, remedy=f"see {client.log}") from None
        yield client
    finally:
        await client.close()


def _keep_logs(
    ground: Ground, project: BoincProject, client: BoincClient, validator: Validator
) -> None:
    said = [path.read_text(errors="replace") for path in client.data.glob("slots/*/stderr.txt")]
    reports = (result.report for result in project.shelf.results.values())
    said += [report.stderr for report in reports if report is not None]
    (ground.logs / "launcher.log").write_text("".join(said))
    (ground.logs / "receipt-check.log").write_text("".join(validator.said))
