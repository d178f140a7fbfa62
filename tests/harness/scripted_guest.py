"""A guest that keeps the `ctrl` conversation and does nothing else; runs inside the VM.

Replaces the agent in the image's agent layer, so that tests of drivers and launcher depend on
neither agent nor manager. Standard library only, and nothing that takes long to import.
"""

import json
import os
import select
from pathlib import Path

PORTS = Path("/sys/class/virtio-ports")
KEY = "A" * 43


class Port:
    def __init__(self, name: str) -> None:
        found = next(p for p in PORTS.iterdir() if (p / "name").read_text().strip() == name)
        self._port = os.open(f"/dev/{found.name}", os.O_RDWR)
        self._rest = b""

    def say(self, **message: object) -> None:
        os.write(self._port, json.dumps(message).encode() + b"\n")

    def line(self) -> bytes:
        while b"\n" not in self._rest:
            data = os.read(self._port, 4096)
            if not data:  # nobody at the host's end
                select.select([], [], [], 0.05)
            self._rest += data
        line, _, self._rest = self._rest.partition(b"\n")
        return line


class Guest:
    def __init__(self, port: Port) -> None:
        self._port = port
        self._epoch = 1

    def hello(self) -> None:
        boot_seconds = float(Path("/proc/uptime").read_text().split()[0])
        self._port.say(
            type="hello", epoch=self._epoch, agent_version="0.0.0", boot_seconds=boot_seconds
        )

    def answer(self, message: dict[str, object]) -> None:
        match message.get("type"):
            case "welcome":
                self._port.say(type="ready", pilot_key=KEY)
            case "enrolment":
                self._port.say(type="state", state="idle", message="scripted")
            case "pause_soon":
                self._port.say(type="pause_ok")
            case "resumed":
                self._epoch += 1
                self.hello()
            case "drain":
                self._port.say(type="state", state="idle" if message["undo"] else "drained")
            case "stop":
                self._port.say(type="state", state="retired")
            case "x-poweroff":
                os.execv("/bin/busybox", ["busybox", "poweroff", "-f"])  # noqa: S606


def main() -> None:
    port = Port("org.copilot.ctrl")
    guest = Guest(port)
    guest.hello()
    while True:
        line = port.line().strip()
        if line:
            guest.answer(json.loads(line))


if __name__ == "__main__":
    main()
