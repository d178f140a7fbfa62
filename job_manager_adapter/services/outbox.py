"""What a pilot has still to be told; what it does not reflect is said again."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from copilot_agent.protocol.frames import Command
from job_manager_adapter.core.leases import Key, Lease
from job_manager_adapter.services.frame_text import array

MAX_OFFERS, MAX_VERDICTS, MAX_COMMANDS, MAX_OTHERS = 64, 200, 1000, 200
MAX_UNHEARD = 2000
MAX_RECEIPTS = 1000
"""Of one pilot; the others wait in the store until its launcher has kept these."""
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
        if not self.unsaid:
            return []
        return [self.things[name] for name, _ in zip(self.unsaid, range(count), strict=False)]

    def said(self, count: int, now: float) -> None:
        if not count:
            return
        for name in list(self.unsaid)[:count]:
            del self.unsaid[name]
            self.said_at[name] = now


@dataclass(frozen=True, slots=True)
class LinksAnswer:
    """Fresh links of one attempt."""

    key: Key
    files: int
    text: str


@dataclass(slots=True)
class Outbox:
    """One pilot's; it outlives sessions. Verdicts, links and receipts are JSON already."""

    offers: Repeated[Key, Lease] = field(default_factory=Repeated)
    commands: Repeated[str, Command] = field(default_factory=Repeated)
    receipts: Repeated[str, str] = field(default_factory=Repeated)
    more_receipts: bool = False
    """There may be others in the store."""
    verdicts: list[str] = field(default_factory=list)
    links: list[LinksAnswer] = field(default_factory=list)

    @property
    def due(self) -> bool:
        return bool(
            self.verdicts
            or self.links
            or self.offers.unsaid
            or self.commands.unsaid
            or self.receipts.unsaid
        )

    @property
    def empty(self) -> bool:
        """Nothing is to be said, and nothing that was said waits for its reflection."""
        things = self.offers.things or self.commands.things or self.receipts.things
        return not (things or self.verdicts or self.links)

    def add_verdict(self, verdict: str) -> None:
        """A pilot that reports and never listens costs no memory: the report comes again."""
        self.verdicts.append(verdict)
        if len(self.verdicts) > MAX_UNHEARD:
            del self.verdicts[:-MAX_UNHEARD]

    def add_receipt(self, name: str, receipt: str) -> None:
        if len(self.receipts.things) < MAX_RECEIPTS or name in self.receipts.things:
            self.receipts.put(name, receipt)
        else:
            self.more_receipts = True

    def add_links(self, answer: LinksAnswer) -> None:
        self.links = [item for item in self.links if item.key != answer.key]
        self.links.append(answer)
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

    def take(self, head: str, offers: Sequence[str], now: float) -> str:
        """The next frame. `offers` are made from the first unsaid leases."""
        parts = [head]
        if offers:
            parts.append(array("offers", offers))
            self.offers.said(len(offers), now)
        if self.verdicts:
            parts.append(array("verdicts", self.verdicts[:MAX_VERDICTS]))
            del self.verdicts[:MAX_VERDICTS]
        if receipts := self.receipts.peek(MAX_OTHERS):
            parts.append(array("receipts", receipts))
            self.receipts.said(len(receipts), now)
        if self.commands.unsaid or self.links:
            parts += self._seldom(now)
        return f"{{{','.join(parts)}}}"

    def _seldom(self, now: float) -> list[str]:
        commands, links = self.commands.peek(MAX_COMMANDS), _some(self.links)
        self.commands.said(len(commands), now)
        del self.links[: len(links)]
        texts = [each.model_dump_json(exclude_defaults=True) for each in commands]
        return [array("commands", texts), array("links", [each.text for each in links])]


def _some(links: list[LinksAnswer]) -> list[LinksAnswer]:
    """The first, and as many more as fit into a frame."""
    room = MAX_LINKS
    for count, item in enumerate(links):
        room -= item.files
        if count and room < 0:
            return links[:count]
    return list(links)
