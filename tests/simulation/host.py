"""A volunteer's computer: the launcher's real core, and a model of the virtual machine it runs."""

import functools
import hashlib
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from copilot_agent.core.events import Key
from copilot_agent.protocol import guest as words
from copilot_agent.protocol.enrolment import enrolment_statement
from job_manager_adapter.services.context import base64url
from tests.simulation.carriers import Carriers, over_http, over_xmpp
from tests.simulation.guest import Guest, Memory
from tests.simulation.ledger import Ledger
from tests.simulation.loop import EPOCH, Clock, Machine, Universe
from tests.simulation.session import PREFIX, Server, SimulatedSession
from tests.simulation.steps import Step, Steps
from tests.simulation.wire import UP, Line
from tests.simulation.workplace import Run, Workplace
from tests.simulation.xmpp_pilot import AgentStreams
from vm_launcher.core import events as ev
from vm_launcher.core.states import Rules, State
from vm_launcher.core.vm import Vm

CHANNEL_SECONDS = 0.001
SUPERVISOR_SECONDS = 1.0
NEXT_TASK_SECONDS = 10.0
"""Until BOINC starts the launcher again."""


@dataclass
class Snapshot:
    """A virtual machine as its host has saved it: memory, disk, clock."""

    memory: Memory
    files: dict[str, bytes]
    monotonic: float
    wall_offset: float
    boot: str
    epoch: int


@dataclass(frozen=True)
class Size:
    cores: int
    window: int


@functools.cache
def _launcher_key(host: str) -> tuple[Ed25519PrivateKey, str]:
    """The same in every schedule."""
    key = Ed25519PrivateKey.from_private_bytes(hashlib.sha256(host.encode()).digest())
    return key, base64url(key.public_key().public_bytes_raw())


class Host:
    """Its name names all that happens on it; `connection` is its way to the manager."""

    def __init__(
        self,
        universe: Universe,
        name: str,
        size: Size,
        secret: str,
        server: Server,
        ledger: Ledger,
        steps: Steps,
        directory: Path,
    ) -> None:
        self.universe = universe
        self.name = name
        self.size = size
        self.line = Line(universe, name)
        self.agent: Machine | None = None
        self.guest: Guest | None = None
        self.vm = Vm(Rules(restarts=1000))
        self.snapshot: Snapshot | None = None
        self._secret = secret
        self._key, self.launcher_key = _launcher_key(name)
        self._server = server
        self._ledger = ledger
        self._steps = steps
        self._directory = directory / name
        self._session: SimulatedSession | None = None
        self._streams: AgentStreams | None = None
        self.falls_back = True
        """Where pilots talk over XMPP: this one talks over HTTP when that does not work."""
        self._clock = Clock(universe)
        self._boot = ""
        self._epoch = 0
        self._boots = 0
        self._runs: dict[Key, Run] = {}
        self._timer = 0

    # ----- the launcher

    def start(self) -> None:
        self.vm = Vm(Rules(restarts=1000))
        self._handle(ev.Begin())

    def ask(self, ask: ev.Ask) -> None:
        self._handle(ev.Asked(ask))

    @property
    def up(self) -> bool:
        return self.vm.state is State.RUNNING and self.agent is not None

    def _handle(self, event: ev.Event) -> None:
        for effect in self.vm.handle(event, self.universe.now):
            self._perform(effect)
        self._set_timer()

    def _set_timer(self) -> None:
        self._timer += 1
        if self.vm.deadline is not None:
            wait = max(0.0, self.vm.deadline - self.universe.now)
            self.universe.after(wait, self._tick, self._timer)

    def _tick(self, timer: int) -> None:
        if timer == self._timer:
            self._handle(ev.Tick())

    def _perform(self, effect: ev.Effect) -> None:
        match effect:
            case ev.BootVm():
                self._later(0.1, ev.Booted())
                self.universe.after(
                    self.universe.random.uniform(2.0, 5.0), self._booted, effect.boot
                )
            case ev.PauseVm():
                self._stand_still()
                self._later(0.01, ev.Paused())
            case ev.ResumeVm():
                self._clock.go_on()
                self._later(0.01, ev.Resumed())
            case ev.RestoreVm():
                self._load()
                self._later(0.5, ev.Restored())
            case ev.DestroyVm():
                self._power_off()
                self._later(0.05, ev.Destroyed())
            case ev.KeepReceipts():
                self._keep(effect)
            case ev.End():
                self.universe.note(self.name, f"launcher ends: {effect.outcome} {effect.message}")
                self.universe.after(NEXT_TASK_SECONDS, self.start)
            case _:
                self._tell(effect)

    def _later(self, seconds: float, event: ev.Event) -> None:
        vm = self.vm
        self.universe.after(seconds, lambda: self._handle(event) if vm is self.vm else None)

    def _tell(self, effect: ev.Effect) -> None:
        match effect:
            case ev.TellWelcome():
                self._say(self._welcome())
            case ev.TellEnrolment():
                self._say(self._vouch(effect.pilot_key))
            case ev.TellPauseSoon():
                self._say(words.PauseSoon(seconds=effect.seconds, reason=effect.reason))
            case ev.TellResumed():
                self._say(words.Resumed(time=self._now, paused_seconds=effect.paused_seconds))
            case ev.TellDrain():
                self._say(words.Drain(undo=effect.undo))
            case ev.TellStop():
                self._say(words.Stop(seconds=effect.seconds))
            case _:
                pass

    @property
    def _now(self) -> float:
        return EPOCH + self.universe.now

    def _welcome(self) -> words.Welcome:
        return words.Welcome(
            time=self._now,
            manager=PREFIX,
            cores=self.size.cores,
            memory_mib=4096,
            disk_mib=8192,
            window=self.size.window,
        )

    def _vouch(self, pilot_key: str) -> words.Enrolment:
        digest = hashlib.sha256(self._secret.encode()).hexdigest()
        signature = base64url(self._key.sign(enrolment_statement(digest, pilot_key)))
        return words.Enrolment(
            secret=self._secret, launcher_key=self.launcher_key, signature=signature
        )

    def _keep(self, effect: ev.KeepReceipts) -> None:
        for receipt in effect.receipts:
            self._ledger.receipts.append((self.name, receipt))
            self._steps.enter(Step.CREDITED, receipt.statement.job, self.name)
        ids = tuple(receipt.statement.id for receipt in effect.receipts)
        self._say(words.ReceiptsKept(ids=ids))

    # ----- the channel

    def _say(self, message: words.HostMessage) -> None:
        line, agent, guest = message.model_dump_json(), self.agent, self.guest
        if agent is not None and guest is not None:
            self.universe.after(CHANNEL_SECONDS, agent.call, guest.hear, line)

    def _said(self, boot: int, line: str) -> None:
        """By the guest; lost when the machine is gone meanwhile."""
        message = words.GUEST_MESSAGE.validate_json(line)
        self.universe.after(CHANNEL_SECONDS, self._handle, ev.Heard(boot, message))

    def _next_epoch(self) -> int:
        self._epoch += 1
        return self._epoch

    # ----- the virtual machine

    def _booted(self, boot: int) -> None:
        if boot != self.vm.boot or self.vm.state is not State.BOOTING:
            return
        self._power_off()
        self._boots += 1
        self._boot = f"{self.name}-{self._boots}"
        self._clock = Clock(self.universe)
        self._clock.wall_offset -= self.universe.random.choice((0.0, 3600.0))
        self._fresh_disk()
        self._start_agent(restarted=False)

    def _fresh_disk(self) -> None:
        shutil.rmtree(self._directory, ignore_errors=True)
        self._directory.mkdir(parents=True)
        (self._directory / "pilot.key").write_bytes(self.universe.random.randbytes(32))
        self._runs = {}

    def _start_agent(self, *, restarted: bool, memory: Memory | None = None) -> None:
        agent: Any = Machine(self.universe, self.name, self._clock)
        agent.boot = self._boot
        place = Workplace(agent, self.name, self._directory, self._steps, self._ledger, self._runs)
        self._session = SimulatedSession(agent, self.line, self._server, self._heard, self._wrote)
        boot = self.vm.boot
        guest = Guest(
            agent,
            place,
            self._session,
            self._carriers(agent, self._session),
            lambda line: self._said(boot, line),
            self._next_epoch,
        )
        self.agent, self.guest = agent, guest
        agent.spawn(self._life(guest, restarted, memory))

    def _carriers(self, agent: Machine, session: SimulatedSession) -> Carriers:
        xmpp = self._server.xmpp
        if xmpp is None:
            return over_http(session)
        self._streams = AgentStreams(agent, self.line, xmpp, self._heard, self._wrote)
        return over_xmpp(self._streams, session if self.falls_back else None)

    async def _life(self, guest: Guest, restarted: bool, memory: Memory | None) -> None:
        """An agent that ends is dead; its supervisor starts another one if it has failed."""
        try:
            await guest.run(restarted, memory)
        except Exception as error:  # noqa: BLE001 - whatever it is, the agent is dead of it
            self.universe.broken(self.name, {"message": "the agent died", "exception": error})
            self.universe.after(0.0, self.crash_agent)

    def _stop_agent(self) -> None:
        if self.agent is not None:
            self.agent.kill()
            for pipe in self.line.pipes:
                if pipe.direction == UP:
                    pipe.lose_some()
        if self._session is not None:
            self._session.died()
        if self._streams is not None:
            self._streams.died()
        self.agent = self.guest = self._session = self._streams = None

    def _power_off(self) -> None:
        self._stop_agent()
        self._ledger.reclaimed(self.name)
        self._clock.go_on()

    # ----- what goes wrong

    def crash_agent(self) -> None:
        if self.agent is None:
            return
        self._stop_agent()
        boot = self._boot
        self.universe.after(SUPERVISOR_SECONDS, self._supervise, boot)

    def _supervise(self, boot: str) -> None:
        if boot == self._boot and self.agent is None and self.vm.state is not State.WAITING:
            self._runs.clear()
            self._start_agent(restarted=True)

    def crash_vm(self) -> None:
        self._boot = ""
        self._power_off()
        self._handle(ev.VmOver(self.vm.boot, "crashed"))

    def _stand_still(self) -> None:
        """Its connections stay until the manager misses the answers to its pings."""
        self._clock.stop()
        clock = self._clock
        for pipe in self.line.pipes[:]:
            if pipe.direction == UP:
                self.line.silence(pipe, lambda: clock.stopped)

    def stall(self) -> None:
        """The hypervisor is stopped without a word."""
        self._stand_still()

    def go_on(self) -> None:
        if self.vm.state is State.RUNNING:
            self._clock.go_on()

    def set_clock(self, seconds: float) -> None:
        self._clock.wall_offset += seconds

    def take_snapshot(self) -> bool:
        memory = self.guest.snapshot() if self.guest and self.up else None
        if memory is None or self._clock.stopped:
            return False
        files = {
            str(path.relative_to(self._directory)): path.read_bytes()
            for path in sorted(self._directory.rglob("*"))
            if path.is_file()
        }
        self.snapshot = Snapshot(
            memory,
            files,
            self._clock.monotonic(),
            self._clock.wall_offset,
            self._boot,
            self._epoch,
        )
        return True

    def roll_back(self) -> None:
        """Another launcher goes on with a machine that was saved earlier."""
        self._power_off()
        self.vm = Vm(Rules(restarts=1000))
        self._handle(ev.Begin(saved=True, saved_seconds=1.0))

    def _load(self) -> None:
        snapshot = self.snapshot
        if snapshot is None:
            raise AssertionError("there is no snapshot")
        self._fresh_disk()
        for name, data in snapshot.files.items():
            path = self._directory / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        self._boot, self._epoch = snapshot.boot, self._epoch + 1
        self._runs.update(snapshot.memory.runs)
        self._clock = Clock(self.universe)
        self._clock.put_back(snapshot.monotonic)
        self._clock.wall_offset = snapshot.wall_offset
        self._start_agent(restarted=False, memory=snapshot.memory)
        self._clock.stop()
        for key in snapshot.memory.core.work.attempts:
            (self._directory / f"{key.job}.{key.attempt}").mkdir(exist_ok=True)

    # ----- what the network shows

    def _heard(self, text: str) -> None:
        """A frame came to this host."""
        if '"offers"' not in text and '"verdicts"' not in text:
            return
        frame = json.loads(text)
        self._ledger.frame_seen(self.name, frame)
        for offer in frame.get("offers", ()):
            self._steps.held(offer["job"], self.name)
        for verdict in frame.get("verdicts", ()):
            self._steps.answered(verdict["job"])

    def _wrote(self, text: str) -> None:
        """A frame leaves this host."""
        if '"reports"' in text:
            for report in json.loads(text)["reports"]:
                self._steps.enter(Step.REPORTED, report["job"], self.name)
