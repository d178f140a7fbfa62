"""Put into the agent by a test, never shipped: kills what a payload orders to be killed.

A payload writes `agent` or its own process id to a file `order` in its directory.
"""

import contextlib
import os
import signal
import threading
import time
from pathlib import Path


def _obey() -> None:
    while True:
        for order in Path("/scratch/work").glob("*/order"):
            with contextlib.suppress(FileNotFoundError):  # its attempt has just been cleaned up
                word = order.read_text().strip()
                if word:
                    order.unlink()
                    os.kill(os.getpid() if word == "agent" else int(word), signal.SIGKILL)
        time.sleep(0.2)  # a file system has no events without inotify


threading.Thread(target=_obey, daemon=True).start()
