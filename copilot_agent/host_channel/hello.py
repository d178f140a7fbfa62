"""The guest's first word. Standard library only: the launcher's boot deadline runs."""

import json
import time
from pathlib import Path

from copilot_agent.host_channel.ports import CTRL_PORT, Port, PortNotFoundError

_RETRY_SECONDS = 0.05


def hello_line(agent_version: str, epoch: int, restarted: bool) -> bytes:
    """A `Hello` as a line of its own, whatever fragment an earlier agent left before it."""
    message = {
        "type": "hello",
        "version": 1,
        "epoch": epoch,
        "agent_version": agent_version,
        "boot_seconds": _uptime(),
        "restarted": restarted,
    }
    return b"\n" + json.dumps(message, separators=(",", ":")).encode() + b"\n"


def say_hello(
    agent_version: str,
    epoch: int,
    restarted: bool,
    *,
    port: Port | None = None,
    timeout: float = 60.0,
) -> Port:
    """Opens `ctrl`, says hello and hands the port on; waits for both at most `timeout` seconds.

    Raises PortNotFoundError where there is no port, TimeoutError where no launcher listens.
    """
    deadline = time.monotonic() + timeout
    if port is None:
        port = _open(min(deadline, time.monotonic() + 5.0))
    rest = memoryview(hello_line(agent_version, epoch, restarted))
    while rest := rest[port.write(rest) :]:
        if time.monotonic() > deadline:
            raise TimeoutError("no launcher listens on the ctrl channel")
        if port.present():
            port.wait_writable(_RETRY_SECONDS)
        else:
            time.sleep(_RETRY_SECONDS)  # an absent host makes poll return at once
    return port


def _open(deadline: float) -> Port:
    while True:
        try:
            return Port.open(CTRL_PORT)
        except PortNotFoundError:
            if time.monotonic() > deadline:
                raise
        time.sleep(_RETRY_SECONDS)


def _uptime() -> float:
    try:
        return float(Path("/proc/uptime").read_text().split()[0])
    except OSError:
        return 0.0
