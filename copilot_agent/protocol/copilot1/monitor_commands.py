"""What goes to the monitor, and the heartbeat between components."""

from typing import ClassVar, Literal

from copilot_agent.protocol.base import Line
from copilot_agent.protocol.copilot1.fields import Measure, Text
from copilot_agent.protocol.copilot1.job_commands import Command


class _Event(Command):
    noack: ClassVar[bool] = True
    component: Line = ""
    event: Line


class ReportEvent(_Event):
    command: Literal["reportEvent"] = "reportEvent"


class ReportEventDuration(_Event):
    command: Literal["reportEventDuration"] = "reportEventDuration"
    duration: Measure
    """Seconds, whatever the original's manual says."""


class ReportEventValue(_Event):
    command: Literal["reportEventValue"] = "reportEventValue"
    value: Measure


class StoreEventDetails(Command):
    noack: ClassVar[bool] = True
    command: Literal["storeEventDetails"] = "storeEventDetails"
    details: Text
    """JSON."""


class UpdateEventDetails(Command):
    noack: ClassVar[bool] = True
    command: Literal["updateEventDetails"] = "updateEventDetails"
    session: Line = ""
    updates: Text
    """A raw update of a database, in JSON: never to be carried out as it is."""


class Ping(Command):
    noack: ClassVar[bool] = True
    command: Literal["Heartbeat:ping"] = "Heartbeat:ping"


class Pong(Command):
    noack: ClassVar[bool] = True
    command: Literal["pong"] = "pong"


class GetStatus(Command):
    """`component` is systemLoad, diskUsage, memoryUsage or runningProcesses."""

    command: Literal["Heartbeat:getStatus"] = "Heartbeat:getStatus"
    component: Line = ""


class HaveStatus(Command):
    command: Literal["haveStatus"] = "haveStatus"
    component: Line = ""
    status: Text = ""
    """In the form of `job_data`; empty where the component has nothing to say."""
