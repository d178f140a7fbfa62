"""What the demo shows while it runs: one rich display, or plain lines without a terminal."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from copilot_agent.protocol.job import JobState, Phase
from job_manager_adapter.cli.output import STATE_STYLE
from job_manager_adapter.views import JobView, PilotView


@dataclass
class Scene:
    """Everything that is shown."""

    step: str = ""
    boinc: str = ""
    """The task in the client's view; empty without BOINC."""
    boinc_details: str = ""
    vm: str = "not started"
    vm_details: str = ""
    jobs: Sequence[JobView] = ()
    pilots: Sequence[PilotView] = ()
    credit: float = 0.0
    started: float = field(default_factory=time.monotonic)


class Display:
    """Shows the newest scene. Use it as a context manager."""

    def __init__(self, *, plain: bool) -> None:
        self.console = Console(highlight=False)
        self.plain = plain or not self.console.is_terminal
        self.scene = Scene()
        self._said: dict[str, str] = {}
        self._live = Live(console=self.console, refresh_per_second=4, get_renderable=self._render)

    def __enter__(self) -> "Display":
        if not self.plain:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if not self.plain:
            self._live.stop()

    def step(self, text: str) -> None:
        """Say what is being done now."""
        self.scene.step = text
        self._say("step", text)

    def update(self) -> None:
        """The scene has changed: print what is new, if there is no live display."""
        if self.scene.boinc:
            self._say("boinc", f"BOINC: {self.scene.boinc}")
        self._say("vm", f"VM {self.scene.vm}")
        for pilot in self.scene.pilots:
            self._say(pilot.id, f"pilot {pilot.id} {pilot.state.value}")
        for job in self.scene.jobs:
            phase = f" ({job.phase.value})" if job.phase and not job.state.final else ""
            self._say(job.id, f"{job.name} {job.state.value}{phase}")

    def _say(self, key: str, text: str) -> None:
        if self.plain and self._said.get(key) != text:
            self._said[key] = text
            elapsed = time.monotonic() - self.scene.started
            self.console.print(Text(f"[{elapsed:6.1f} s] {text}"))

    def _render(self) -> RenderableType:
        scene = self.scene
        elapsed = time.monotonic() - scene.started
        title = Text(f"Cloud Co-Pilot demo · {elapsed:.0f} s · {scene.step}", style="bold")
        panels = [_panel("VM", scene.vm, scene.vm_details), _pilots(scene), _jobs(scene)]
        if scene.boinc:
            panels.insert(0, _panel("BOINC task", scene.boinc, scene.boinc_details))
        return Group(title, *panels)


def _panel(title: str, state: str, details: str) -> RenderableType:
    return Panel(Text(f"{state}\n{details}"), title=title, title_align="left")


def _pilots(scene: Scene) -> RenderableType:
    lines = [
        f"{pilot.id}  {pilot.state.value}  {pilot.capabilities.cores} cores, "
        f"{pilot.capabilities.memory_mib} MiB  {len(pilot.jobs)} jobs held"
        for pilot in scene.pilots
    ]
    lines.append(f"credit granted: {scene.credit:.4f}")
    return Panel(Text("\n".join(lines)), title="pilot", title_align="left")


def _jobs(scene: Scene) -> RenderableType:
    table = Table.grid(padding=(0, 2))
    for job in scene.jobs:
        state = job.state.value
        phase = job.phase.value if job.phase and not job.state.final else ""
        cpu = f"{job.cpu_seconds:.0f} CPU s" if job.cpu_seconds else ""
        bar = ProgressBar(total=1.0, completed=_fraction(job), width=30)
        table.add_row(job.name, Text(state, style=STATE_STYLE.get(state, "")), phase, bar, cpu)
    return Panel(table, title="jobs", title_align="left")


def _fraction(job: JobView) -> float:
    if job.state is JobState.SUCCEEDED:
        return 1.0
    if job.phase in (Phase.STAGE_OUT, Phase.REPORTING):
        return 1.0
    return job.fraction or 0.0
