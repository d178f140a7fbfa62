"""What the launcher says to its guest, as messages of the `ctrl` channel."""

import contextlib
import time
from dataclasses import dataclass

from copilot_agent.protocol import guest
from vm_launcher.channels.ctrl import ChannelDownError, HostChannel
from vm_launcher.core import events as ev
from vm_launcher.drivers.base import Usage
from vm_launcher.identity import Identity

_USAGE_SECONDS = 5.0


@dataclass(frozen=True)
class Voice:
    """Whom the launcher speaks for."""

    identity: Identity
    secret: str
    welcome: guest.Welcome
    """Its time and accelerator are filled in when it is sent."""


def host_message(effect: ev.Effect, voice: Voice, accelerator: str) -> guest.HostMessage | None:
    """None for what is no word to the guest."""
    match effect:
        case ev.TellWelcome():
            update = {"time": time.time(), "accelerator": accelerator}
            return voice.welcome.model_copy(update=update)
        case ev.TellEnrolment(pilot_key):
            return voice.identity.vouch(voice.secret, pilot_key)
        case ev.TellPauseSoon(seconds, reason):
            return guest.PauseSoon(seconds=seconds, reason=reason)
        case ev.TellResumed(paused_seconds):
            seconds = min(paused_seconds, 10_000_000.0)
            return guest.Resumed(time=time.time(), paused_seconds=seconds)
        case ev.TellDrain(undo):
            return guest.Drain(undo=undo)
        case ev.TellStop(seconds):
            return guest.Stop(seconds=seconds)
        case _:
            return None


class UsageNews:
    """Tells the guest every few seconds what its VM has cost, for its claims of CPU time."""

    def __init__(self) -> None:
        self._due = 0.0

    async def tell(self, channel: HostChannel | None, usage: Usage | None, now: float) -> None:
        if channel is None or usage is None or now < self._due:
            return
        self._due = now + _USAGE_SECONDS
        with contextlib.suppress(ChannelDownError):  # the next one says it all
            await channel.send(guest.VmUsage(cpu_seconds=usage.cpu_seconds))
