"""A hash tree over statements, so that one signature is good for many receipts."""

from collections.abc import Sequence

from copilot_agent.protocol.receipt import leaf_hash, node_hash


def tree(statements: Sequence[bytes]) -> tuple[bytes, list[bytes]]:
    """The root, and for each statement the hashes on its way up to it (see `Receipt.signed`)."""
    ways: list[list[bytes]] = [[] for _ in statements]
    level = [(leaf_hash(each), [index]) for index, each in enumerate(statements)]
    while len(level) > 1:
        above = []
        for (left, below_left), (right, below_right) in zip(level[::2], level[1::2], strict=False):
            for index in below_left:
                ways[index].append(right)
            for index in below_right:
                ways[index].append(left)
            above.append((node_hash(left, right), below_left + below_right))
        if len(level) % 2:
            above.append(level[-1])  # it has no sibling, and goes up as it is
        level = above
    return level[0][0], [b"".join(way) for way in ways]
