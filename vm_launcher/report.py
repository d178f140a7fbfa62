"""Keeps the launcher's `Status` up to date: status.json and the answer to `vm-launcher status`."""

import logging
import time
from collections.abc import Callable
from typing import Any

from copilot_agent.protocol import guest
from vm_launcher.core.credit import Totals
from vm_launcher.core.events import Event, Outcome, Paused, Saved
from vm_launcher.core.states import State
from vm_launcher.drivers.base import Usage
from vm_launcher.state import StateDirectory, Status

log = logging.getLogger(__name__)

_MESSAGES = 20
_STATES_TOLD = 1000
"""Of one boot, in the log; a hostile guest does not fill it."""


class Reporter:
    def __init__(
        self,
        directory: StateDirectory,
        status: Status,
        *,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.status = status
        self._directory = directory
        self._clock = clock
        self._monotonic = monotonic
        self._boot_started = monotonic()
        self._fresh_boot = True
        self._told = 0
        self._written = True
        self.seen: Usage | None = None
        """The VM as it was looked at last; None before the first look at this one."""
        self.totals = Totals(receipts=0, granted=0.0, cpu_seconds=0.0)

    def write(self) -> None:
        """For others to read: a disk that is full does not end the VM."""
        self.status.updated = self._clock()
        try:
            self._directory.write_status(self.status)
        except OSError as error:
            if self._written:
                log.warning("status.json cannot be written: %s", error.strerror)
            self._written = False
        else:
            self._written = True

    def booting(self, accelerator: str) -> None:
        status, self.seen = self.status, None
        status.accelerator = accelerator
        status.vm_boot_seconds = status.ready_seconds = None
        status.guest_state, status.guest_message = "", ""
        status.jobs, status.jobs_running = [], 0
        self._fresh_boot = True
        self._told = 0

    def starting(self) -> None:
        """The hypervisor is being started now."""
        self._boot_started = self._monotonic()

    def restored(self) -> None:
        self.status.restore_seconds = self._since_boot()
        self._fresh_boot = False

    def took(self, result: Event, seconds: float) -> None:
        """From the wish to its result."""
        if isinstance(result, Paused):
            self.status.pause_seconds = round(seconds, 4)
        elif isinstance(result, Saved):
            self.status.save_seconds = round(seconds, 3)

    def moved(self, state: State, finishing: bool, boots: int) -> None:
        status = self.status
        if (status.state, status.finishing, status.boots) != (state, finishing, boots):
            status.state, status.finishing, status.boots = str(state), finishing, boots
            self.write()

    def say(self, text: str) -> None:
        self.status.messages = [*self.status.messages, text][-_MESSAGES:]

    def ended(self, outcome: Outcome, message: str) -> None:
        self.status.outcome, self.status.message = str(outcome), message

    def credit(self, totals: Totals) -> None:
        self.totals = totals
        self.status.receipts, self.status.credit_granted = totals.receipts, totals.granted

    def network(self, snapshot: dict[str, Any]) -> None:
        self.status.network = snapshot

    def usage(self, usage: Usage) -> None:
        self.seen = usage
        self.status.cpu_seconds = usage.cpu_seconds
        self.status.memory_bytes = usage.memory_bytes
        self.status.disk_bytes = usage.disk_bytes

    def heard(self, message: guest.GuestMessage) -> None:
        match message:
            case guest.Hello():
                self.status.agent_version = message.agent_version
                if self.status.vm_boot_seconds is None and self._fresh_boot:
                    self.status.vm_boot_seconds = self._since_boot()
                self.write()
            case guest.Ready():
                if self.status.ready_seconds is None and self._fresh_boot:
                    self.status.ready_seconds = self._since_boot()
                self.write()
            case guest.State():
                self._guest_state(message)
            case guest.GuestProgress():  # comes often; written with the next sample
                self.status.jobs = [job.model_dump() for job in message.jobs]
                self.status.jobs_succeeded = message.jobs_succeeded
                self.status.jobs_failed = message.jobs_failed
            case guest.Log():
                self.say(f"guest: {_printable(message.message)}")
            case _:
                pass

    def _guest_state(self, said: guest.State) -> None:
        if said.state != self.status.guest_state and self._told < _STATES_TOLD:
            self._told += 1
            log.info("pilot %s", said.state)
        self.status.guest_state = said.state
        self.status.guest_message = said.message
        self.status.jobs_running = said.jobs_running
        if said.pilot is not None:
            self.status.pilot = said.pilot

    def _since_boot(self) -> float:
        return round(self._monotonic() - self._boot_started, 3)


def _printable(text: str) -> str:
    return "".join(sign if sign.isprintable() else "?" for sign in text[:500])
