"""Tells a monitor of the original what happens here. Nothing waits for it, and nothing is kept."""

import asyncio
import logging
import uuid
from collections.abc import Awaitable, Callable, Iterable

from copilot_agent.protocol.copilot1.commands import info_of
from copilot_agent.protocol.copilot1.envelope import Envelope
from copilot_agent.protocol.copilot1.job_commands import Command
from copilot_agent.protocol.errors import CopilotError
from copilot_agent.xmpp import computer
from copilot_agent.xmpp.errors import XmppError
from job_manager_adapter.services.events import Events
from job_manager_adapter.services.principals import Principal
from job_manager_adapter.transports.copilot1.monitor_reports import Computer, MonitorReports
from job_manager_adapter.views import Role

log = logging.getLogger(__name__)
PERIOD_SECONDS = 60.0
_RETRY_SECONDS = 1.0
_EVERYTHING = Principal(token="", role=Role.OPERATOR)

Send = Callable[[Envelope], Awaitable[None]]


class Monitor:
    """`address` is the monitor's account, `queued` how many jobs wait.

    Where several managers share a database each sees all events: only the one that `leads` speaks.
    """

    def __init__(
        self,
        address: str,
        reports: MonitorReports,
        events: Events,
        send: Send,
        *,
        queued: Callable[[], int],
        leads: Callable[[], bool] = lambda: True,
        period_seconds: float = PERIOD_SECONDS,
    ) -> None:
        self._address = address
        self._reports = reports
        self._events = events
        self._send = send
        self._queued = queued
        self._leads = leads
        self._period = period_seconds

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._follow(), name="monitor's events")
            group.create_task(self._repeat(), name="monitor's values")

    async def happened(self, event: str) -> None:
        """What is no event of ours, such as error.emptyQueue; from whichever manager."""
        await self._say([self._reports.happened(event)])

    async def _follow(self) -> None:
        while True:
            try:
                async for event in self._events.subscribe(_EVERYTHING):
                    told = self._reports.of(event)  # remembers starts, for when it comes to lead
                    if self._leads():
                        await self._say(told)
                return  # the manager is stopping
            except CopilotError as error:
                log.debug("co-pilot 1: events for the monitor are lost: %s", error)
                await asyncio.sleep(_RETRY_SECONDS)

    async def _repeat(self) -> None:
        while True:
            await asyncio.sleep(self._period)
            told = self._reports.periodic(self._queued(), _look())
            if self._leads():
                await self._say(told)

    async def _say(self, told: Iterable[Command]) -> None:
        """What cannot be said now is not said later: the originals count what they hear."""
        for command in told:
            envelope = Envelope(
                recipient=self._address,
                id=str(uuid.uuid4()),
                noack=command.noack,
                info=info_of(command),
            )
            try:
                await self._send(envelope)
            except XmppError as error:
                log.debug("co-pilot 1: the monitor is not told: %s", error.message)


def _look() -> Computer | None:
    """None where this computer does not say how it is."""
    try:
        return Computer(computer.load(), computer.disks(), computer.memory(), computer.traffic())
    except (OSError, ValueError, IndexError):
        return None
