"""A task that does as it is told: `program.py official|ours`, in its slot.

A line of JSON in (name, arguments), a line of JSON out, so that both runtimes go through the same.
"""

import asyncio
import json
import os
import select
import sys
from pathlib import Path
from typing import Any

from tests.integration.boinc_api.official import Application
from vm_launcher.boinc import client as ours
from vm_launcher.boinc.messages import AppStatus, Order
from vm_launcher.boinc.slot import Slot


class OfficialTask:
    def __init__(self, send_status: bool) -> None:
        self._library = Application()
        self._library.start(send_status=send_status)
        self._downs: list[str] = []

    def tick(self) -> None:
        while (name := self._library.trickle_down()) is not None:
            self._downs.append(Path(name).read_text())
            Path(name).unlink()

    def seen(self) -> dict[str, Any]:
        status = self._library.status()
        return {
            "standalone": self._library.is_standalone(),
            "earlier_cpu": self._library.wu_cpu_time(),
            "suspended": bool(status.suspended),
            "quit": bool(status.quit_request),
            "abort": bool(status.abort_request),
            "reread": bool(status.reread_init_data_file),
            "client_gone": bool(status.no_heartbeat),
            "memory_limit": status.max_working_set_size,
            "network_suspended": bool(status.network_suspended),
            "trickles_down": self._downs,
        }

    def report(self, cpu: float, checkpoint: float, fraction: float, pid: int) -> bool:
        return self._library.report(cpu, checkpoint, fraction, pid)

    def progress(self, fraction: float) -> None:
        """Its own report each second, with the network wanted."""
        self._library.need_network()
        self._library.fraction_done(fraction)

    def trickle_up(self, variety: str, body: str) -> None:
        self._library.trickle_up(variety, body)

    def offer_page(self, url: str) -> None:
        self._library.offer_page(url)

    def finish(self, code: int, message: str, notice: bool) -> None:
        self._library.finish(code, message, notice=notice)

    def postpone(self, seconds: int, reason: str, notice: bool) -> None:
        self._library.postpone(seconds, reason, notice=notice)


class OurTask:
    def __init__(self, send_status: bool) -> None:
        self._slot = Slot(Path())
        asyncio.run(self._slot.lock())
        self._slot.clear_endings()
        self._client = ours.Client.attach(self._slot)
        self._seen: dict[str, Any] = dict.fromkeys(
            ("suspended", "quit", "abort", "reread", "client_gone", "network_suspended"), False
        )
        self._seen |= {"memory_limit": 0.0, "trickles_down": [], "standalone": False}
        self._seen["earlier_cpu"] = self._slot.init_data().wu_cpu_time

    def tick(self) -> None:
        for event in self._client.poll():
            match event:
                case ours.Ordered(Order.SUSPEND | Order.RESUME as order):
                    self._seen["suspended"] = order is Order.SUSPEND
                case ours.Ordered(Order.REREAD):
                    self._seen["reread"] = True
                case ours.Ordered(order):
                    self._seen[order.value] = True
                case ours.NetworkSwitched(suspended):
                    self._seen["network_suspended"] = suspended
                case ours.MemoryLimit(limit):
                    self._seen["memory_limit"] = limit
                case ours.TrickleDown(text):
                    self._seen["trickles_down"].append(text)
                case ours.ClientGone():
                    self._seen["client_gone"] = True

    def seen(self) -> dict[str, Any]:
        return self._seen

    def report(self, cpu: float, checkpoint: float, fraction: float, pid: int) -> bool:
        return self._client.report(AppStatus(cpu, checkpoint, fraction, pid or None))

    def progress(self, fraction: float) -> None:
        self._client.report(AppStatus(1.0, 1.0, fraction, want_network=True))

    def trickle_up(self, variety: str, body: str) -> None:
        self._client.trickle_up(variety, body)

    def offer_page(self, url: str) -> None:
        self._client.offer_page(url)

    def finish(self, code: int, message: str, notice: bool) -> None:
        self._slot.finish(code, message, notice=notice)
        self._leave(code)

    def postpone(self, seconds: int, reason: str, notice: bool) -> None:
        self._slot.postpone(seconds, reason, notice=notice)
        self._leave(0)

    def _leave(self, code: int) -> None:
        self._client.close()
        self._slot.unlock()
        sys.stdout.flush()
        os._exit(code)


def main(which: str, send_status: bool) -> None:
    task = OfficialTask(send_status) if which == "official" else OurTask(send_status)
    print(json.dumps("ready"), flush=True)  # noqa: T201
    while True:
        task.tick()
        if not select.select([0], [], [], 0.1)[0]:
            continue
        line = os.read(0, 65536)
        if not line:
            return
        name, *arguments = json.loads(line)
        print(json.dumps(getattr(task, name)(*arguments)), flush=True)  # noqa: T201


if __name__ == "__main__":
    main(sys.argv[1], send_status=sys.argv[2:] == ["--send-status"])
