"""The best of many entries that fits, found without looking at each of them.

A tournament: entries are leaves, sorted by what they need, and each node above them knows who wins
below it and what all below it need at least. A branch is passed over as a whole if its winner is
no better than what was found, or if even that least does not fit. Where the winner of all fits,
one look is enough; else the looks grow with the logarithm of the entries, as long as the needs
that do not fit stand together.
"""

from typing import NamedTuple

Rank = tuple[int, int, int]
"""Smaller is better; no two entries have the same."""
_NEVER: Rank = (1 << 62, 0, 0)
_SMALLEST = 8


class Need(NamedTuple):
    """What an entry needs; of several entries: what all of them need at least."""

    platform: str
    """Empty: not the same for all."""
    cpu_flags: frozenset[str]
    cores: int
    memory_mib: int
    disk_mib: int

    def within(self, limits: "Need") -> bool:
        return (
            self.cores <= limits.cores
            and self.memory_mib <= limits.memory_mib
            and self.disk_mib <= limits.disk_mib
            and (self.platform == limits.platform or not self.platform)
            and self.cpu_flags <= limits.cpu_flags
        )

    def least(self, other: "Need") -> "Need":
        if self is _NOTHING_YET or self == other:
            return other
        return Need(
            self.platform if self.platform == other.platform else "",
            self.cpu_flags & other.cpu_flags,
            min(self.cores, other.cores),
            min(self.memory_mib, other.memory_mib),
            min(self.disk_mib, other.disk_mib),
        )

    def order(self) -> tuple[str, list[str], int, int, int]:
        return (self.platform, sorted(self.cpu_flags), *self[2:])


_NOTHING_YET = Need("", frozenset(), 1 << 62, 1 << 62, 1 << 62)
_Key = tuple[int, int]


class Ranking:
    """Entries by a key of their own; what a key needs never changes."""

    def __init__(self) -> None:
        self._slots: dict[_Key, int] = {}
        self._clear(_SMALLEST)

    def _clear(self, size: int) -> None:
        self._size = size
        self._keys: list[_Key] = []
        self._ranks = [_NEVER] * size
        self._winners = [0] * size + list(range(size))
        """Of node n the children are 2n and 2n + 1; the leaves begin at `size`."""
        for node in reversed(range(1, size)):
            self._winners[node] = self._winners[2 * node]
        self._least = [_NOTHING_YET] * (2 * size)

    def put(self, key: _Key, need: Need, rank: Rank) -> None:
        """Ranks an entry, for the first time or anew."""
        slot = self._slots.get(key)
        if slot is None:
            slot = self._slots[key] = self._enter(key, need)
        if self._ranks[slot] != rank:
            self._ranks[slot] = rank
            self._replay(slot)

    def drop(self, key: _Key) -> None:
        """The entry cannot be chosen any more. It keeps its place, in case that it comes again."""
        slot = self._slots.get(key)
        if slot is not None and self._ranks[slot] != _NEVER:
            self._ranks[slot] = _NEVER
            self._replay(slot)

    def best(self, limits: Need) -> _Key | None:
        """The key of the best entry within the limits."""
        slot = self._search(1, limits, -1)
        return None if slot < 0 else self._keys[slot]

    def _search(self, node: int, limits: Need, found: int) -> int:
        """The slot of the best below `node`, or `found` if that is better."""
        winner = self._winners[node]
        rank = self._ranks[winner]
        if rank >= (_NEVER if found < 0 else self._ranks[found]):
            return found
        if not self._least[node].within(limits):
            return found
        if self._least[self._size + winner].within(limits):
            return winner
        left, right = 2 * node, 2 * node + 1
        first, second = (left, right) if self._winners[left] == winner else (right, left)
        return self._search(second, limits, self._search(first, limits, found))

    def _replay(self, slot: int) -> None:
        """The games of one entry, upwards until they change nothing."""
        ranks, winners = self._ranks, self._winners
        node = (self._size + slot) // 2
        while node:
            left, right = winners[2 * node], winners[2 * node + 1]
            winner = left if ranks[left] <= ranks[right] else right
            if winner == winners[node] != slot:
                return
            winners[node] = winner
            node //= 2

    def _enter(self, key: _Key, need: Need) -> int:
        if len(self._keys) == self._size:
            self._sort()
        slot = len(self._keys)
        self._keys.append(key)
        node = self._size + slot
        self._least[node] = need
        while (node := node // 2) and (both := self._least[node].least(need)) != self._least[node]:
            self._least[node] = both
        return slot

    def _sort(self) -> None:
        """Puts the entries in order of their needs, with as much space again for new ones.

        Dropped ones lose their places.
        """
        leaves, ranks = self._least[self._size :], self._ranks
        slots = {key: slot for key, slot in self._slots.items() if ranks[slot] != _NEVER}
        entries = [(leaves[slot], key, ranks[slot]) for key, slot in slots.items()]
        entries.sort(key=lambda entry: entry[0].order())
        size = _SMALLEST
        while size < 2 * len(entries):
            size *= 2
        self._clear(size)
        self._slots.clear()
        for need, key, rank in entries:
            self.put(key, need, rank)
