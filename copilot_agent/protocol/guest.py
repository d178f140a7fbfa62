"""The `ctrl` channel between launcher and guest: JSON lines over a virtio-serial port.

One message a line, at most `MAX_LINE_BYTES`; the field `type` names it. Unknown types are ignored,
so either side may be newer. The conversation:

    guest   hello                         as early as possible, before anything heavy is imported
    host    welcome                       time, limits, where the manager is
    guest   ready(pilot_key)              once per boot, and again after an agent's restart
    host    enrolment(secret, signature)  the launcher vouches for the pilot's key
    guest   state, progress, receipts, file_event …
    host    pause_soon → guest pause_ok → (the VM is stopped) … → host resumed(time) → guest hello
    host    drain | stop → guest state(drained)
    host    usage                         every few seconds, while the VM runs

After a restore or a reconnect of the port the guest says hello again with a new `epoch`; both
sides then drop every stream of the `net` channel and start that connection anew.
"""

from typing import Annotated, Literal

from pydantic import Field, StringConstraints, TypeAdapter

from copilot_agent.protocol.base import (
    HOST_PORT,
    Bytes,
    Line,
    PublicKey,
    Seconds,
    Signature,
    UnixTime,
    Wire,
)
from copilot_agent.protocol.capabilities import Version
from copilot_agent.protocol.enrolment import Secret
from copilot_agent.protocol.ids import PilotId, ReceiptId
from copilot_agent.protocol.job import FileName
from copilot_agent.protocol.receipt import Receipt

CTRL_PORT = "org.copilot.ctrl"
NET_PORT = "org.copilot.net"
MAX_LINE_BYTES = 256 * 1024

Epoch = Annotated[int, Field(ge=0, le=1 << 53)]
"""Counts the starts of the guest's end of the channel: agent starts and resumes alike."""


class Hello(Wire):
    """Guest: I live. The first line the launcher waits for (boot deadline)."""

    type: Literal["hello"] = "hello"
    version: Literal[1] = 1
    epoch: Epoch
    agent_version: Version
    boot_seconds: Seconds = 0.0
    """The guest's uptime."""
    restarted: bool = False
    """The supervisor has started the agent again in the same boot."""


class Ready(Wire):
    """Guest: everything is loaded; vouch for this key, please."""

    type: Literal["ready"] = "ready"
    pilot_key: PublicKey
    memory_bytes: Bytes = 0


class State(Wire):
    """Guest: what the pilot is doing, for `vm-launcher status` and the volunteer."""

    type: Literal["state"] = "state"
    state: Literal["connecting", "idle", "working", "draining", "drained", "retired", "failed"]
    pilot: PilotId | None = None
    jobs_running: Annotated[int, Field(ge=0, le=100_000)] = 0
    jobs_held: Annotated[int, Field(ge=0, le=100_000)] = 0
    message: Line = ""


class JobProgress(Wire):
    """One running job in words for people; the launcher attaches no meaning to it."""

    name: Line = ""
    experiment: Line = ""
    fraction: Annotated[float, Field(ge=0, le=1)] | None = None
    cpu_seconds: Seconds = 0.0


class GuestProgress(Wire):
    type: Literal["progress"] = "progress"
    jobs: Annotated[tuple[JobProgress, ...], Field(max_length=64)] = ()
    jobs_succeeded: Annotated[int, Field(ge=0, le=1 << 40)] = 0
    jobs_failed: Annotated[int, Field(ge=0, le=1 << 40)] = 0
    cpu_seconds: Seconds = 0.0


class Receipts(Wire):
    """Guest: keep these. Repeated until the launcher answers `receipts_kept`."""

    type: Literal["receipts"] = "receipts"
    receipts: Annotated[tuple[Receipt, ...], Field(max_length=100)]


class PauseOk(Wire):
    """Guest: the manager knows, stop me."""

    type: Literal["pause_ok"] = "pause_ok"


class FileEvent(Wire):
    """Guest: a file was moved; for the volunteer's page."""

    type: Literal["file_event"] = "file_event"
    direction: Literal["in", "out"]
    name: FileName
    bytes: Bytes
    seconds: Seconds


class Log(Wire):
    """Guest: a line of the agent's log at warning or above."""

    type: Literal["log"] = "log"
    level: Literal["warning", "error"]
    message: Annotated[str, StringConstraints(max_length=2000)]


class Welcome(Wire):
    """Host: the time and what this guest may use."""

    type: Literal["welcome"] = "welcome"
    version: Literal[1] = 1
    time: UnixTime
    xmpp: Annotated[str, StringConstraints(pattern=rf"^({HOST_PORT})?$")] = ""
    """host:port of the XMPP server that the guest may use; empty if none."""
    manager: Annotated[str, StringConstraints(max_length=300, pattern=r"^https?://[\x21-\x7e]+$")]
    """The manager's base URL, reached over the `net` channel."""
    cores: Annotated[int, Field(ge=1, le=1024)]
    memory_mib: Annotated[int, Field(ge=0, le=1 << 24)]
    """For jobs: the guest's memory less what the agent needs."""
    disk_mib: Annotated[int, Field(ge=0, le=1 << 28)]
    accelerator: Annotated[str, StringConstraints(pattern=r"^[a-z0-9_-]{0,16}$")] = ""
    image: Annotated[str, StringConstraints(pattern=r"^([0-9a-f]{64})?$")] = ""
    window: Annotated[int, Field(ge=0, le=64)] = 1
    ca_certificates: Annotated[str, StringConstraints(max_length=200_000)] = ""
    """PEM, trusted for the manager in addition to the image's own; empty if none."""


class Enrolment(Wire):
    """Host: the launcher vouches for the pilot's key; answers `ready`."""

    type: Literal["enrolment"] = "enrolment"
    secret: Secret
    launcher_key: PublicKey
    signature: Signature


class ReceiptsKept(Wire):
    type: Literal["receipts_kept"] = "receipts_kept"
    ids: Annotated[tuple[ReceiptId, ...], Field(max_length=100)]


class PauseSoon(Wire):
    """Host: the VM stops at `pause_ok`, and in any case after `seconds`."""

    type: Literal["pause_soon"] = "pause_soon"
    seconds: Seconds = 1.0
    reason: Line = ""


class Resumed(Wire):
    """Host: time has passed; set the clock, drop the connections, attach again."""

    type: Literal["resumed"] = "resumed"
    time: UnixTime
    paused_seconds: Seconds = 0.0


class Drain(Wire):
    """Host: finish what runs, take no more (`undo` takes it back)."""

    type: Literal["drain"] = "drain"
    undo: bool = False
    deadline_seconds: Seconds | None = None


class Stop(Wire):
    """Host: kill what runs, report it as volunteer_left, say state(retired)."""

    type: Literal["stop"] = "stop"
    seconds: Seconds = 5.0


class VmUsage(Wire):
    """Host: what the VM has cost so far, so that the guest claims no CPU time that it did not get.

    The guest's own accounts go on while the host lets the hypervisor rest. Without this message,
    as from older launchers, they are all that it has.
    """

    type: Literal["usage"] = "usage"
    cpu_seconds: Annotated[float, Field(ge=0, le=1e12)]
    """Of the hypervisor, all processors together; grows from boot on, over saves and restores."""


GuestMessage = Annotated[
    Hello | Ready | State | GuestProgress | Receipts | PauseOk | FileEvent | Log,
    Field(discriminator="type"),
]
HostMessage = Annotated[
    Welcome | Enrolment | ReceiptsKept | PauseSoon | Resumed | Drain | Stop | VmUsage,
    Field(discriminator="type"),
]
GUEST_MESSAGE: TypeAdapter[GuestMessage] = TypeAdapter(GuestMessage)
HOST_MESSAGE: TypeAdapter[HostMessage] = TypeAdapter(HostMessage)
