"""What a pilot has still to be told; what it does not reflect is said again."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from copilot_agent.protocol.frames import Command, Links, ManagerFrame, Offer, Policy, Verdict
from copilot_agent.protocol.receipt import Receipt
from job_manager_adapter.core.leases import Key, Lease

MAX_OFFERS, MAX_VERDICTS, MAX_COMMANDS, MAX_OTHERS = 64, 200, 1000, 200
MAX_UNHEARD = 2000
MAX_LINKS = 600
"""Files whose links one frame carries: a frame has to stay below 1 MiB."""
Name = TypeVar("Name")
Thing = TypeVar("Thing")


@dataclass(slots=True)
class Repeated(Generic[Name, Thing]):
    """Things that are said until the other side reflects them."""

    things: dict[Name, Thing] = field(default_factory=dict)
    unsaid: dict[Name, None] = field(default_factory=dict)
    said_at: dict[Name, float] = field(default_factory=dict)

    def put(self, name: Name, thing: Thing) -> None:
        self.things[name] = thing
        self.unsaid[name] = None

    def reflected(self, name: Name) -> None:
        if self.things.pop(name, None) is not None:
            self.unsaid.pop(name, None)
            self.said_at.pop(name, None)

    def repeat(self, before: float) -> None:
        """What was last said before that time is to be said again."""
        for name, at in self.said_at.items():
            if at <= before:
                self.unsaid[name] = None

    def peek(self, count: int) -> list[Thing]:
        return [self.things[name] for name, _ in zip(self.unsaid, range(count), strict=False)]

    def said(self, count: int, now: float) -> None:
        for name in list(self.unsaid)[:count]:
            del self.unsaid[name]
            self.said_at[name] = now


@dataclass(slots=True)
class Outbox:
    """One pilot's; it outlives sessions."""

    offers: Repeated[Key, Lease] = field(default_factory=Repeated)
    commands: Repeated[str, Command] = field(default_factory=Repeated)
    receipts: Repeated[str, Receipt] = field(default_factory=Repeated)
    verdicts: list[Verdict] = field(default_factory=list)
    links: list[Links] = field(default_factory=list)

    @property
    def due(self) -> bool:
        return bool(
            self.verdicts
            or self.links
            or self.offers.unsaid
            or self.commands.unsaid
            or self.receipts.unsaid
        )

    def add_verdict(self, verdict: Verdict) -> None:
        """A pilot that reports and never listens costs no memory: the report comes again."""
        self.verdicts.append(verdict)
        del self.verdicts[:-MAX_UNHEARD]

    def add_links(self, links: Links) -> None:
        older = (links.job, links.attempt)
        self.links = [item for item in self.links if (item.job, item.attempt) != older]
        self.links.append(links)
        del self.links[:-MAX_OTHERS]

    def repeat(self, before: float) -> None:
        for repeated in (self.offers, self.commands, self.receipts):
            if repeated.said_at:
                repeated.repeat(before)

    def reflect(self, commands: Iterable[str], receipts: Iterable[str]) -> None:
        for command in commands:
            self.commands.reflected(command)
        for receipt in receipts:
            self.receipts.reflected(receipt)

    def take(
        self,
        *,
        session: int,
        acknowledges: int,
        server_time: float,
        now: float,
        offers: tuple[Offer, ...],
        policy: Policy | None,
    ) -> ManagerFrame:
        """The next frame. `offers` are made from the first unsaid leases."""
        commands = self.commands.peek(MAX_COMMANDS)
        receipts = self.receipts.peek(MAX_OTHERS)
        links = _some(self.links)
        frame = ManagerFrame(
            session=session,
            acknowledges=acknowledges,
            server_time=server_time,
            offers=offers,
            verdicts=tuple(self.verdicts[:MAX_VERDICTS]),
            commands=tuple(commands),
            receipts=tuple(receipts),
            links=links,
            policy=policy,
        )
        self.offers.said(len(offers), now)
        self.commands.said(len(commands), now)
        self.receipts.said(len(receipts), now)
        del self.verdicts[:MAX_VERDICTS]
        del self.links[: len(links)]
        return frame


def _some(links: list[Links]) -> tuple[Links, ...]:
    """The first, and as many more as fit into a frame."""
    room = MAX_LINKS
    for count, item in enumerate(links):
        room -= len(item.inputs) + len(item.outputs)
        if count and room < 0:
            return tuple(links[:count])
    return tuple(links)
