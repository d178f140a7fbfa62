"""QEMU's control connection: our errors, our time limits, and no noise when QEMU dies."""

import asyncio
import contextlib
import logging
import socket
from collections.abc import Mapping
from contextlib import AbstractContextManager

from qemu.qmp import EventListener, ExecuteError, QMPClient, QMPError

from vm_launcher.drivers.base import DriverError

_COMMAND_SECONDS = 10.0

# What goes wrong is raised here as a DriverError; the library would log it once more.
logging.getLogger("qemu.qmp").addHandler(logging.NullHandler())
logging.getLogger("qemu.qmp").propagate = False


class Qmp:
    """One connection for one QEMU process; it ends with that process."""

    def __init__(self) -> None:
        self._client = QMPClient("vm")

    async def connect(self, end: socket.socket) -> None:
        try:
            async with asyncio.timeout(_COMMAND_SECONDS):
                await self._client.connect(end)
        except (QMPError, OSError, TimeoutError) as error:
            raise DriverError(f"QEMU's control connection did not open: {error}") from error

    async def execute(
        self, command: str, arguments: Mapping[str, object] | None = None
    ) -> Mapping[str, object]:
        """Raises `DriverError` when QEMU refuses, is gone or takes longer than 10 s."""
        try:
            async with asyncio.timeout(_COMMAND_SECONDS):
                answer = await self._client.execute(command, arguments)
        except ExecuteError as error:
            raise DriverError(f"QEMU refused {command}: {error}") from error
        except (QMPError, OSError, EOFError) as error:
            raise DriverError(f"QEMU went away during {command}") from error
        except TimeoutError as error:
            raise DriverError(f"QEMU did not answer {command} within 10 s") from error
        return answer if isinstance(answer, Mapping) else {}

    async def send_file(self, descriptor: int, name: str) -> None:
        """Hand QEMU an open file, to be named `fd:NAME`."""
        try:
            self._client.send_fd_scm(descriptor)
        except (QMPError, OSError) as error:
            raise DriverError("QEMU took no file descriptor") from error
        await self.execute("getfd", {"fdname": name})

    @property
    def events(self) -> EventListener:
        """Every event from the connection's start on; for one reader."""
        return self._client.events

    def listen(self, *names: str) -> AbstractContextManager[EventListener]:
        """A second queue, of the named events only."""
        return self._client.listener(names)

    async def close(self) -> None:
        with contextlib.suppress(QMPError, OSError, EOFError, TimeoutError):
            async with asyncio.timeout(2):
                await self._client.disconnect()
