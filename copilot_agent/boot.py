"""First steps of an agent in the guest: says hello before anything heavy is imported.

Standard library only, and little of it: each import costs up to a second under emulation.
"""

import contextlib
import gc
import os
import select
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from copilot_agent.host_channel.hello import say_hello
from copilot_agent.host_channel.ports import Port
from copilot_agent.version import VERSION

RUN = Path("/run/copilot")


def next_epoch(directory: Path, at_least: int = 1) -> int:
    """Counts starts and resumes in this boot."""
    file = directory / "epoch"
    try:
        epoch = max(int(file.read_text()) + 1, at_least)
    except (FileNotFoundError, ValueError):
        epoch = at_least
    new = file.with_name("epoch.new")
    new.write_text(str(epoch))
    new.replace(file)
    return epoch


class Arrival:
    """Notes when the launcher's answer to hello comes, while this process is still importing.

    Under emulation that takes many seconds, and the answer holds the time of day.
    """

    def __init__(self, port: Port) -> None:
        self._port = port
        self.monotonic: float | None = None
        threading.Thread(target=self._wait, daemon=True).start()

    def _wait(self) -> None:
        poll = select.poll()
        poll.register(self._port.fileno(), select.POLLIN)
        while not any(flags & select.POLLIN for _, flags in poll.poll(1000)):
            time.sleep(0.02)  # an absent host makes poll return at once
        self.monotonic = time.monotonic()


@contextlib.contextmanager
def lean_imports() -> Iterator[None]:
    """Leaves out what imports do in vain; under emulation it takes seconds.

    The collector finds nothing in modules, pydantic looks for plugins in every package, and aiohttp
    reads all certificates for contexts of its own, which the agent's sessions replace.
    """
    name = "SSL_CERT_FILE"
    certificates = os.environ.get(name)
    os.environ["PYDANTIC_DISABLE_PLUGINS"] = "__all__"
    os.environ[name] = os.devnull
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
        del os.environ[name]
        if certificates is not None:
            os.environ[name] = certificates


def main() -> int:
    os.umask(0o077)
    RUN.mkdir(mode=0o700, parents=True, exist_ok=True)
    epoch = next_epoch(RUN)
    port = say_hello(VERSION, epoch, restarted=epoch > 1, timeout=600.0)
    from copilot_agent.payload.starter import Starter

    starter = Starter()  # before there is a thread, and before this process grows
    arrival = Arrival(port)
    with lean_imports():
        from copilot_agent.guest import main as guest_main

    return guest_main(port, epoch, RUN, arrival, starter)
