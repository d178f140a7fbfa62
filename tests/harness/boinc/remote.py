"""What can be asked of a running client and told to it, and what it has on its disk."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tests.harness.boinc.gui_rpc import GuiRpc
from tests.harness.boinc.leftovers import Leftovers, processes_of, strange_files
from tests.harness.boinc.patience import until
from tests.harness.boinc.tasks import Task, parse_task
from tests.harness.boinc.xml import Element, block, line, number_of, text_of

_PATIENCE = 60.0

Mode = Literal["always", "auto", "never"]
ProjectOrder = Literal["update", "detach", "reset", "suspend", "resume", "nomorework"]
TaskOrder = Literal["suspend", "resume", "abort"]


@dataclass(frozen=True)
class Message:
    """A line of the client's event log."""

    number: int
    time: int
    text: str


@dataclass(frozen=True)
class ProjectStatus:
    url: str
    user_total_credit: float
    host_total_credit: float
    host: int


class Remote:
    def __init__(self, root: Path, rpc: GuiRpc) -> None:
        self.root = root
        self.data = root / "data"
        self.scratch = (root / "tmp", root / "home", root / "run")
        self.rpc = rpc

    @property
    def pid(self) -> int:
        """Of the client; 0 before its first start."""
        return 0

    async def call(self, request: str) -> Element:
        """Any request of the GUI RPC, such as `<get_state/>`."""
        return await self.rpc.call(request)

    # projects

    async def attach(self, url: str, key: str, name: str = "") -> None:
        inside = line("project_url", url) + line("authenticator", key) + line("project_name", name)
        await self.call(block("project_attach", inside))

    async def project(self, url: str, order: ProjectOrder) -> None:
        await self.call(block(f"project_{order}", line("project_url", url)))

    async def projects(self) -> list[ProjectStatus]:
        reply = await self.call("<get_project_status/>")
        return [
            ProjectStatus(
                url=text_of(project, "master_url"),
                user_total_credit=number_of(project, "user_total_credit"),
                host_total_credit=number_of(project, "host_total_credit"),
                host=int(number_of(project, "hostid")),
            )
            for project in reply.iter("project")
        ]

    # tasks

    async def tasks(self) -> list[Task]:
        reply = await self.call("<get_results/>")
        return [parse_task(result) for result in reply.iter("result")]

    async def task(
        self,
        name: str = "",
        holds: Callable[[Task], bool] = lambda task: True,
        what: str = "there",
        seconds: float = _PATIENCE,
    ) -> Task:
        """The first task whose name begins so, once it is there and `holds`."""

        async def ask() -> Task | None:
            found = (task for task in await self.tasks() if task.name.startswith(name))
            return next((task for task in found if holds(task)), None)

        return await until(ask, f"task {name} {what}", seconds)

    async def task_running(self, name: str = "", seconds: float = _PATIENCE) -> Task:
        return await self.task(name, lambda task: task.process == "running", "running", seconds)

    async def task_gone(self, name: str, seconds: float = _PATIENCE) -> None:
        """Until the client has forgotten it: acknowledged by the project, its slot cleared."""

        async def ask() -> bool:
            return not any(task.name.startswith(name) for task in await self.tasks())

        await until(ask, f"task {name} gone", seconds)

    async def order(self, task: Task, order: TaskOrder) -> None:
        inside = line("project_url", task.project_url) + line("name", task.name)
        await self.call(block(f"{order}_result", inside))

    # the whole client

    async def set_run_mode(self, mode: Mode) -> None:
        await self.call(block("set_run_mode", f"<{mode}/>\n", line("duration", 0)))

    async def set_network_mode(self, mode: Mode) -> None:
        await self.call(block("set_network_mode", f"<{mode}/>\n", line("duration", 0)))

    async def messages(self, after: int = 0) -> list[Message]:
        reply = await self.call(block("get_messages", line("seqno", after)))
        return [
            Message(
                int(number_of(message, "seqno")),
                int(number_of(message, "time")),
                text_of(message, "body"),
            )
            for message in reply.iter("msg")
        ]

    async def message(self, text: str, after: int = 0, seconds: float = _PATIENCE) -> Message:
        """The first one later than number `after` in which the regular expression is found."""

        async def ask() -> Message | None:
            said = await self.messages(after)
            return next((message for message in said if re.search(text, message.text)), None)

        return await until(ask, f"message {text!r}", seconds)

    # on its disk

    def project_directory(self, url: str) -> Path:
        return self.data / "projects" / _escaped(url)

    def account_file(self, url: str) -> Path:
        return self.data / f"account_{_escaped(url)}.xml"

    def slot(self, task: Task) -> Path:
        return self.data / "slots" / str(task.slot)

    def slots(self) -> dict[int, list[str]]:
        """Names of the files in each slot directory that has any."""
        found = {
            int(directory.name): sorted(
                str(Path(top, name).relative_to(directory))
                for top, *names in os.walk(directory)
                for name in itertools.chain(*names)
            )
            for directory in (self.data / "slots").glob("[0-9]*")
        }
        return {number: names for number, names in found.items() if names}

    def leftovers(self) -> Leftovers:
        """What tasks have left, or have now if any runs."""
        return Leftovers(
            processes=tuple(one for one in processes_of(self.root) if one.pid != self.pid),
            locks=tuple(self.data.glob("slots/*/boinc_lockfile")),
            files=tuple(strange_files(self.data, self.scratch)),
        )

    async def nothing_left(self, seconds: float = 10.0) -> None:
        """Until no process, no lock and no strange file of any task is left."""

        async def ask() -> bool:
            return not self.leftovers()

        try:
            await until(ask, "nothing left", seconds)
        except AssertionError as late:
            late.add_note(str(self.leftovers()))
            raise


def _escaped(url: str) -> str:
    """As the client makes names of files from that of a project."""
    return re.sub(r"[^A-Za-z0-9.-]", "_", url.removeprefix("http://").rstrip("/"))
