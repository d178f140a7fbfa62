"""When a frame goes to the manager, and what is in it."""

from copilot_agent.core import effects as do
from copilot_agent.core import events as ev
from copilot_agent.core import frames
from copilot_agent.core.attempts import Stage
from copilot_agent.core.effects import Effect
from copilot_agent.core.errands import Errands
from copilot_agent.core.link import Link, LinkState
from copilot_agent.core.status import Status
from copilot_agent.core.work import Work
from copilot_agent.protocol.capabilities import Capabilities
from copilot_agent.protocol.frames import Policy, Wants

FRAME_GAP_SECONDS = 0.02
"""News within this time after a frame share the next one."""
NOTHING = Wants(cores=0, memory_mib=0, disk_mib=0)


class Speech:
    """News go at once, but one frame at a time and not too many; progress rides on heartbeats."""

    def __init__(
        self,
        capabilities: Capabilities,
        window: int,
        work: Work,
        link: Link,
        errands: Errands,
        status: Status,
    ) -> None:
        self.policy = Policy()
        self.urgent = False
        self.with_progress = False
        self.paused = False
        self.taking = True
        """Whether more work is wanted."""
        self.leaving = False
        self.farewell_said = False
        self._capabilities = capabilities
        self._wants = Wants(
            cores=capabilities.cores,
            memory_mib=capabilities.memory_mib,
            disk_mib=capabilities.disk_mib,
            window=window,
        )
        self._work = work
        self._link = link
        self._errands = errands
        self._status = status
        self._heartbeat_at: float | None = None
        self._next_frame = 0.0
        self._measuring = False
        """A heartbeat waits for `Measured`."""
        self._reports_again = False

    @property
    def next_due(self) -> float | None:
        if not self._link.attached or self._heartbeat_at is None:
            return None
        if self.urgent and self._link.in_flight is None:
            return min(self._heartbeat_at, self._next_frame)
        return self._heartbeat_at

    def set_policy(self, policy: Policy | None, now: float) -> None:
        if policy is not None and policy != self.policy:
            if self._heartbeat_at is not None:  # in proportion, so that a fleet's stay spread
                stretch = policy.heartbeat_seconds / self.policy.heartbeat_seconds
                self._heartbeat_at = now + max(0.0, self._heartbeat_at - now) * stretch
            self.policy = policy
            self._link.use(policy)

    def attach(self, now: float) -> Effect:
        self._heartbeat_at = now + self.policy.heartbeat_seconds
        self._reports_again = True
        return self.frame(now)

    def heartbeat(self, now: float) -> list[Effect]:
        due = self._heartbeat_at is not None and now >= self._heartbeat_at and self._link.attached
        if not (due or self._status.measure_due(now)):
            return []
        running = bool(self._work.running)
        if due:
            self._heartbeat_at = now + self.policy.heartbeat_seconds
            self._reports_again = True
            self._measuring = running
            self.urgent = self.urgent or not running
        if not running:
            return []
        self._status.measuring(now)
        return [do.Measure()]

    def measured(self, event: ev.Measured) -> list[Effect]:
        for sample in event.samples:
            attempt = self._work.attempts.get(sample.key)
            if attempt is not None and attempt.stage is Stage.RUNNING:
                attempt.sample = sample
        if self._measuring:
            self._measuring = False
            self.urgent = self.with_progress = True
        return self._status.progress(self._work)

    def flush(self, now: float) -> list[Effect]:
        self.urgent = (
            self.urgent
            or self._work.news
            or self._errands.news
            or frames.unsent_reports(self._work.attempts.values())
        )
        if not self._link.attached or self._link.in_flight is not None or not self.urgent:
            return []
        return [self.frame(now)] if now >= self._next_frame else []

    def frame(self, now: float) -> Effect:
        self._next_frame = now + FRAME_GAP_SECONDS
        attaching = self._link.state is LinkState.ATTACHING
        commands, receipts = self._errands.take()
        frame = frames.build(
            self._work.attempts.values(),
            now,
            wants=self._wants if self.taking else NOTHING,
            all_reports=self._reports_again,
            with_progress=self.with_progress or attaching,
            session=self._link.session,
            sequence=self._link.next_sequence(),
            paused=self.paused,
            draining=not self.taking,
            leaving=self.leaving,
            capabilities=self._capabilities if attaching else None,
            commands_done=commands,
            receipts_kept=receipts,
        )
        self.urgent = self._reports_again = self.with_progress = self._work.news = False
        self.farewell_said = self.leaving
        return do.SendFrame(frame)
