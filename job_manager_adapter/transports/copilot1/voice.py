"""Speaks for an original agent in the conversation with pilots."""

import asyncio
from collections.abc import Sequence

from copilot_agent.protocol.capabilities import Capabilities
from copilot_agent.protocol.errors import CopilotError, ErrorCode
from copilot_agent.protocol.frames import (
    Held,
    ManagerFrame,
    Offer,
    PilotFrame,
    Report,
    Verdict,
    Wants,
)
from copilot_agent.protocol.job import FailureClass, Outcome, Phase, Requirements
from job_manager_adapter.core.leases import Key
from job_manager_adapter.services.session import PilotSession


def ended(key: Key, failure_class: FailureClass, message: str) -> Report:
    """Of an attempt of which there is nothing to bring."""
    cancelled = failure_class is FailureClass.CANCELLED
    return Report(
        job=key[0],
        attempt=key[1],
        outcome=Outcome.CANCELLED if cancelled else Outcome.FAILED,
        failure_class=failure_class,
        message=message[:2000],
    )


NOTHING = Wants(cores=0, memory_mib=0, disk_mib=0)
REPEAT_SECONDS = 5.0
VERDICT_SECONDS = 60.0


class Voice:
    """One session. What the manager says once is reflected in the next frame."""

    def __init__(self, session: PilotSession, wants: Wants) -> None:
        self._session = session
        self._wants = wants
        self._sequence = 0
        self._commands: tuple[str, ...] = ()
        self._receipts: tuple[str, ...] = ()

    def say(
        self,
        held: tuple[Key, Phase] | None = None,
        *,
        reports: Sequence[Report] = (),
        wants: Wants | None = None,
        leaving: bool = False,
        capabilities: Capabilities | None = None,
    ) -> None:
        """Raises SessionClosedError."""
        holding = [Held(job=held[0][0], attempt=held[0][1], phase=held[1])] if held else []
        frame = PilotFrame(
            session=self._session.number,
            sequence=self._sequence,
            wants=self._wants if wants is None else wants,
            holding=tuple(holding),
            reports=tuple(reports),
            leaving=leaving,
            capabilities=capabilities,
            commands_done=self._commands,
            receipts_kept=self._receipts,
        )
        self._sequence += 1
        self._commands = self._receipts = ()
        self._session.receive(frame)

    def fill(self, needs: Requirements) -> None:
        """No room is left beside one job."""
        self._wants = Wants(cores=needs.cores, memory_mib=needs.memory_mib, disk_mib=needs.disk_mib)

    def give_back(self, offers: Sequence[Offer], held: Key) -> None:
        """What came beside the one job; it costs nobody anything."""
        others = [(one.job, one.attempt) for one in offers if (one.job, one.attempt) != held]
        if others:
            text = "an original agent does one job at a time"
            reports = [ended(key, FailureClass.PREEMPTED, text) for key in others]
            self.say((held, Phase.RUNNING), reports=reports)

    async def hear(self, seconds: float) -> ManagerFrame | None:
        """None if nothing was said for so long. Raises SessionClosedError."""
        frame = await self._session.next(seconds)
        if frame is not None:
            self._commands += tuple(command.id for command in frame.commands)
            self._receipts += tuple(item.statement.id for item in frame.receipts)
        return frame

    async def report(self, report: Report) -> Verdict:
        """The verdict, once it is committed. Raises CopilotError where none comes."""
        key = (report.job, report.attempt)
        try:
            async with asyncio.timeout(VERDICT_SECONDS):
                while True:
                    self.say((key, Phase.REPORTING), reports=[report], wants=NOTHING)
                    if verdict := await self._verdict(key):
                        return verdict
        except TimeoutError:
            message = f"no verdict on {key[0]} within {VERDICT_SECONDS:.0f} s"
            raise CopilotError(message, code=ErrorCode.UNAVAILABLE) from None

    async def _verdict(self, key: Key) -> Verdict | None:
        while frame := await self.hear(REPEAT_SECONDS):
            for verdict in frame.verdicts:
                if (verdict.job, verdict.attempt) == key:
                    return verdict
        return None

    def close(self) -> None:
        self._session.detach()

    def leave(self) -> None:
        """The pilot is gone until it attaches again."""
        if not self._session.closed:
            self.say(wants=NOTHING, leaving=True)
            self._session.detach()
