"""Commands and receipts: each is done once, and acknowledged as often as it is repeated."""

from collections import OrderedDict
from collections.abc import Iterable

from copilot_agent.protocol.frames import Command
from copilot_agent.protocol.receipt import Receipt

MAX_REMEMBERED = 4096
MAX_IN_FRAME = 1000


class Seen:
    """A bounded set of ids."""

    def __init__(self) -> None:
        self._ids: OrderedDict[str, None] = OrderedDict()

    def add(self, ident: str) -> None:
        self._ids[ident] = None
        while len(self._ids) > MAX_REMEMBERED:
            self._ids.popitem(last=False)

    def __contains__(self, ident: str) -> bool:
        return ident in self._ids


class Errands:
    def __init__(self) -> None:
        self.commands_done: list[str] = []
        self.receipts_kept: list[str] = []
        self._commands = Seen()
        self._receipts = Seen()

    @property
    def news(self) -> bool:
        return bool(self.commands_done or self.receipts_kept)

    def new_commands(self, commands: Iterable[Command]) -> list[Command]:
        """Those not done before; all of them count as done from now on."""
        fresh = []
        for command in commands:
            if command.id not in self._commands:
                fresh.append(command)
                self._commands.add(command.id)
            self.commands_done.append(command.id)
        return fresh

    def receipts_to_keep(self, receipts: Iterable[Receipt]) -> tuple[Receipt, ...]:
        wanted = []
        for receipt in receipts:
            if receipt.statement.id in self._receipts:
                self.receipts_kept.append(receipt.statement.id)
            else:
                wanted.append(receipt)
        return tuple(wanted)

    def kept(self, ids: Iterable[str]) -> None:
        for ident in ids:
            self._receipts.add(ident)
            self.receipts_kept.append(ident)

    def take(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Acknowledgements for one frame. If it is lost, the manager repeats, and so do we."""
        commands, receipts = self.commands_done, self.receipts_kept
        self.commands_done, self.receipts_kept = commands[MAX_IN_FRAME:], receipts[MAX_IN_FRAME:]
        return tuple(commands[:MAX_IN_FRAME]), tuple(receipts[:MAX_IN_FRAME])
