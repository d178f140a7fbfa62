"""The volunteer's computer in the demo: whoever starts the launcher, and what is seen of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from deploy.demo.display import Display, Scene
from deploy.demo.options import Options
from deploy.demo.summary import BoincFacts
from job_manager_adapter.client import Client
from vm_launcher.state import Status


@dataclass(frozen=True)
class Ground:
    """What is there before a launcher is started."""

    options: Options
    work: Path
    display: Display
    manager: Sequence[str]
    """Its program, to which a command is added."""
    url: str
    client: Client
    launcher_options: Sequence[str] = ()
    """Such as `vm-launcher run` and `vm-launcher boinc-project` take both."""

    @property
    def logs(self) -> Path:
        return self.options.out / "logs"

    @property
    def image(self) -> Path:
        return self.options.cache / "image"


@dataclass(frozen=True)
class Finished:
    receipts: Sequence[str]
    """Each in JSON, as the manager signed it."""
    boinc: BoincFacts | None = None


class Host(Protocol):
    def check(self) -> None:
        """Raises CopilotError if the launcher, or what it needs to live, has ended."""

    async def look(self, scene: Scene, /) -> Status:
        """The launcher's newest status; what else is seen of this computer goes into `scene`."""

    async def finish(self, receipts: int) -> Finished:
        """Once all receipts are there. Raises CopilotError if they don't come."""
