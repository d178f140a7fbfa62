"""This agent, as an original manager sees it: one job at a time, asked for, run, delivered.

It never does what the originals do on `sleep` (reboot) and `redirect` (send anything anywhere), and
it listens to nobody but the managers of one address, and there to the one that it has asked.
"""

from collections.abc import Callable, Iterable
from typing import assert_never

from copilot_agent.core.copilot1.asking import Asking
from copilot_agent.core.copilot1.delivery import Delivery
from copilot_agent.core.copilot1.words import (
    Acked,
    Assignment,
    Bounced,
    Cancel,
    Drop,
    Effect,
    Ended,
    Event,
    Explained,
    Forgotten,
    Garbled,
    Heard,
    Note,
    Online,
    PlaceWanted,
    Room,
    Take,
    Tick,
    Timers,
    Unsent,
)
from copilot_agent.protocol.copilot1 import job_commands as job
from copilot_agent.protocol.copilot1.commands import UnknownCommand


class Worker:
    def __init__(
        self,
        managers: str,
        *,
        new_id: Callable[[], str],
        new_key: Callable[[], str],
        now: float,
        timers: Timers | None = None,
        earlier: Iterable[Assignment] = (),
        ask_at: float = 0.0,
    ) -> None:
        """`managers` is the bare address that all of them share; `new_id` makes unique ids."""
        timers = timers or Timers()
        self._asking = Asking(managers, timers, new_id, ask_at)
        self._delivery = Delivery(managers, timers, new_id, earlier, now)
        self._new_key = new_key
        self._online = False

    def handle(self, *events: Event, now: float) -> list[Effect]:
        effects = [effect for event in events for effect in self._dispatch(event, now)]
        if self._online:
            effects += self._asking.tick(now)
            effects += self._delivery.tick(now)
        return effects

    @property
    def assignments(self) -> tuple[Assignment, ...]:
        return tuple(self._delivery.assignments.values())

    @property
    def next_due(self) -> float | None:
        """When a Tick is wanted; without a login nothing is due."""
        if not self._online:
            return None
        dues = (self._asking.next_due, self._delivery.next_due)
        return min((due for due in dues if due is not None), default=None)

    # ----- dispatch

    def _dispatch(self, event: Event, now: float) -> list[Effect]:
        match event:
            case Heard():
                return self._hear(event, now)
            case Garbled():
                return self._hear_garbled(event)
            case Online() | Unsent() | Acked() | Bounced() | Tick():
                return self._on_line(event, now)
            case Room() | PlaceWanted() | Ended() | Explained() | Forgotten():
                return self._on_pilot(event, now)
            case _:
                assert_never(event)

    def _on_line(self, event: Online | Unsent | Acked | Bounced | Tick, now: float) -> list[Effect]:
        match event:
            case Online():
                self._online = True
            case Unsent():
                self._online = False
                self._lost(event.id, sent=False, now=now)
            case Bounced():
                self._lost(event.id, sent=True, now=now)
            case Acked():
                return self._delivery.acked(event.sender, event.id)
            case Tick():
                pass
            case _:
                assert_never(event)
        return []

    def _lost(self, message: str, *, sent: bool, now: float) -> None:
        self._asking.lost(message, sent=sent, now=now)
        self._delivery.lost(message, sent=sent, now=now)

    def _on_pilot(
        self, event: Room | PlaceWanted | Ended | Explained | Forgotten, now: float
    ) -> list[Effect]:
        match event:
            case Room():
                self._asking.room(event.free)
            case PlaceWanted():
                return self._delivery.want_place(event)
            case Ended():
                return self._delivery.end(event, now)
            case Explained():
                self._delivery.explained(event.key, now)
            case Forgotten():
                return [Drop(event.key)] if self._delivery.forget(event.key) else []
            case _:
                assert_never(event)
        return []

    # ----- what managers say

    def _hear(self, heard: Heard, now: float) -> list[Effect]:
        match heard.command:
            case job.HaveJob() as offer:
                return self._asking.offered(heard, offer, now)
            case job.RunJob() as given:
                return self._given(heard.sender, given)
            case job.HaveOutputDir():
                return self._delivery.have_place(heard.sender, now)
            case job.StoreOutputDir() as command:
                return self._delivery.place(heard.sender, command)
            case _:
                return self._hear_else(heard, now)

    def _hear_else(self, heard: Heard, now: float) -> list[Effect]:
        match heard.command:
            case job.Sleep():
                self._asking.told_to_sleep(now)
                return [Note("info", f"{heard.sender} says sleep; this agent does not")]
            case job.ErrorCommand() as error:
                return self._hear_error(heard.sender, error.error_string, now)
            case job.Redirect():
                text = f"{heard.sender} wants something sent to somebody else; this agent does not"
                return [Note("warning", text)]
            case UnknownCommand() as unknown:
                return [Note("info", f"{heard.sender} says {unknown.command}: unknown here")]
            case _:
                return []

    def _given(self, sender: str, given: job.RunJob) -> list[Effect]:
        if not self._asking.given_by(sender):
            return [Note("warning", f"{sender} gives a job that was not asked for")]
        return [Take(self._assigned(sender, given.job.id, given.job_data), given)]

    def _hear_garbled(self, garbled: Garbled) -> list[Effect]:
        """If it can be named, its manager is told that it failed: nobody else would notice."""
        if not self._asking.given_by(garbled.sender):
            return []
        note = Note("error", f"{garbled.sender} gives a job that is refused: {garbled.reason}")
        if not garbled.job:
            return [note]
        assignment = self._assigned(garbled.sender, garbled.job, None)
        return [note, Take(assignment, None, garbled.reason)]

    def _assigned(self, giver: str, name: str, job_data: str | None) -> Assignment:
        made = Assignment(key=self._new_key(), job=name, giver=giver, job_data=job_data)
        self._delivery.assignments[made.key] = made
        self._asking.room(free=False)
        return made

    def _hear_error(self, sender: str, reason: str, now: float) -> list[Effect]:
        """An original agent dies of it, and its job with it."""
        text = " ".join(reason.split())[:300]
        effects: list[Effect] = [Note("error", f"{sender} says: {text}")]
        if self._asking.refused_by(sender):
            return effects
        if refused := self._delivery.refused_by(sender, text, now):
            return effects + refused
        for each in self.assignments:
            if each.giver == sender and each.exit_status is None:
                effects.append(Cancel(each.key, f"the manager says: {text}"))
        return effects
