"""An agent outside a virtual machine: its own launcher, receipts in a file, news in the log."""

import fcntl
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from copilot_agent.assembly import Ground, build
from copilot_agent.core import events as ev
from copilot_agent.identity import PrivateKey, own_launcher
from copilot_agent.protocol.guest import GuestMessage, State
from copilot_agent.protocol.receipt import Receipt
from copilot_agent.runtime import Runtime
from copilot_agent.settings import Settings
from copilot_agent.spool import Spool
from copilot_agent.transports.connections import open_session

log = logging.getLogger(__name__)


class InUseError(Exception):
    """Another agent runs on the same state directory."""


class OwnHost:
    def __init__(self, runtime: Runtime, spool: Spool) -> None:
        self._runtime = runtime
        self._spool = spool
        self._said = ""

    def tell(self, message: GuestMessage) -> None:
        if isinstance(message, State) and message.state != self._said:
            self._said = message.state
            log.info("%s", message.state)

    def keep_receipts(self, receipts: tuple[Receipt, ...]) -> None:
        try:
            self._spool.keep_receipts(receipts)
        except OSError as error:
            log.error("cannot keep receipts: %s; the manager will repeat them", error)
            return
        self._runtime.post(ev.ReceiptsKept(tuple(each.statement.id for each in receipts)))


@contextmanager
def alone(state: Path, ground: Ground) -> Iterator[None]:
    """The only agent on its state directory; the sandbox is closed at the end.

    Raises InUseError and OSError.
    """
    lock = os.open(state / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise InUseError(
            f"another agent uses {state}: stop it or give this one another --state"
        ) from None
    try:
        yield
    finally:
        ground.sandbox.close()
        os.close(lock)


async def run(settings: Settings, secret: str, ground: Ground) -> int:
    """The exit code. Raises InUseError, ValueError and OSError."""
    with alone(settings.state, ground):
        vouch = own_launcher(PrivateKey.kept_in(settings.state / "launcher.key"), secret)
        async with open_session(extra_ca=settings.ca_certificates) as session:
            spool = Spool(settings.state)
            runtime = build(
                settings,
                ground,
                session,
                vouch,
                lambda runtime: OwnHost(runtime, spool),
                launcher=False,
            )
            return await runtime.run()
