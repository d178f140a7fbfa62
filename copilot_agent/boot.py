"""First steps of an agent in the guest: says hello before anything heavy is imported.

Standard library only, and little of it: each import costs up to a second under emulation.
"""

import os
from pathlib import Path

from copilot_agent.host_channel.hello import say_hello
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


def main() -> int:
    os.umask(0o077)
    RUN.mkdir(mode=0o700, parents=True, exist_ok=True)
    epoch = next_epoch(RUN)
    port = say_hello(VERSION, epoch, restarted=epoch > 1, timeout=600.0)
    from copilot_agent.guest import main as guest_main

    return guest_main(port, epoch, RUN)
