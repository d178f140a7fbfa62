"""A core with a clock of its own, for examples and the state machine."""

from typing import TypeVar

from copilot_agent.core import effects as do
from copilot_agent.core import events as ev
from copilot_agent.core.effects import Effect
from copilot_agent.core.events import Key
from copilot_agent.core.pilot import PilotCore
from copilot_agent.core.speech import FRAME_GAP_SECONDS
from copilot_agent.protocol.capabilities import Capabilities
from copilot_agent.protocol.frames import (
    Command,
    CommandKind,
    ManagerFrame,
    Offer,
    OutputLink,
    PilotFrame,
    Verdict,
    VerdictKind,
)
from copilot_agent.protocol.ids import make_id
from copilot_agent.protocol.job import JobSpec, Requirements, Usage

E = TypeVar("E", bound=Effect)


def job_id(number: int) -> str:
    return make_id("j", 0, number)


def command_id(number: int) -> str:
    return make_id("c", 0, number)


def offer(number: int, attempt: int = 1, *, cores: int = 1, disk_mib: int = 1) -> Offer:
    spec = JobSpec(
        experiment="demo",
        command=("/bin/true",),
        requirements=Requirements(cores=cores, memory_mib=16, disk_mib=disk_mib),
    )
    outputs = tuple(
        OutputLink(name=name, url=f"http://files.test/{number}/{attempt}/{name}", max_bytes=1000)
        for name in ("stdout.log", "stderr.log", "result.txt")
    )
    return Offer(job=job_id(number), attempt=attempt, spec=spec, lease_seconds=60, outputs=outputs)


def ended(key: Key, exit_code: int | None = 0) -> ev.PayloadEnded:
    return ev.PayloadEnded(key, exit_code, None, None, "", Usage(cpu_seconds=2.0))


class Scene:
    def __init__(self, *, cores: int = 2, disk_mib: int = 100, launcher: bool = False) -> None:
        capabilities = Capabilities(cores=cores, memory_mib=1000, disk_mib=disk_mib)
        self.core = PilotCore(capabilities, 1, launcher=launcher)
        self.now = 100.0
        self.session = 0
        self.log: list[Effect] = []

    def do(self, event: ev.Event, *, after: float = 0.0) -> list[Effect]:
        self.now += after
        effects = self.core.handle(event, now=self.now)
        self.log += effects
        return effects

    def attach(self) -> list[Effect]:
        """From offline to attached; returns the effects of the first answer."""
        self.do(ev.Connected())
        self.session += 1
        self.sent()
        return self.hear()

    def hear(
        self,
        *,
        offers: tuple[Offer, ...] = (),
        verdicts: tuple[Verdict, ...] = (),
        commands: tuple[Command, ...] = (),
    ) -> list[Effect]:
        frame = ManagerFrame(
            session=self.session,
            server_time=1.0,
            offers=offers,
            verdicts=verdicts,
            commands=commands,
        )
        return self.do(ev.FrameReceived(frame))

    def command(self, number: int, kind: CommandKind, key: Key | None = None) -> list[Effect]:
        job, attempt = key or (None, None)
        command = Command(id=command_id(number), kind=kind, job=job, attempt=attempt)
        return self.hear(commands=(command,))

    def accept_report(self, key: Key, verdict: VerdictKind = VerdictKind.ACCEPTED) -> list[Effect]:
        return self.hear(verdicts=(Verdict(job=key.job, attempt=key.attempt, verdict=verdict),))

    def sent(self) -> list[Effect]:
        """The frame in flight is written, then what joined the next, then news go at once again."""
        effects: list[Effect] = []
        self.now += FRAME_GAP_SECONDS
        while self.core.link.in_flight is not None:
            effects += self.do(ev.FrameSent(self.core.link.in_flight))
            effects += self.do(ev.Tick(), after=FRAME_GAP_SECONDS)
        return effects

    def start(self, number: int, attempt: int = 1) -> Key:
        """An offer, up to the running payload."""
        key = Key(job_id(number), attempt)
        self.hear(offers=(offer(number, attempt),))
        self.do(ev.StagedIn(key, 0.1, 0))
        self.do(ev.PayloadStarted(key, 1.0))
        return key

    def finish(self, key: Key) -> list[Effect]:
        """From the running payload to the report on disk."""
        self.do(ended(key))
        self.do(ev.StagedOut(key, (), 0.1))
        return self.do(ev.ReportSpooled(key))

    @property
    def last_frame(self) -> PilotFrame:
        return of(self.log, do.SendFrame)[-1].frame


def of(effects: list[Effect], kind: type[E]) -> list[E]:
    return [effect for effect in effects if isinstance(effect, kind)]


def attached(*, launcher: bool = False) -> Scene:
    scene = Scene(launcher=launcher)
    scene.do(ev.Started())
    scene.attach()
    return scene
