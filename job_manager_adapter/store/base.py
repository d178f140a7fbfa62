"""The store's interface (being filled in)."""

from pathlib import Path
from typing import Protocol


class Store(Protocol):
    async def open(self) -> None:
        """Opens and migrates. Raises StoreError for a newer schema, with the remedy."""

    async def close(self) -> None: ...

    async def backup(self, target: Path) -> None:
        """A consistent copy while the store is in use."""

    async def check(self) -> list[str]:
        """Problems of integrity; empty is good."""
