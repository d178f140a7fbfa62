"""Debian's own BOINC library, by ctypes. C++ functions go by their mangled names.

Only for processes of their own: it changes how the whole process does arithmetic (subnormal
floats become 0). `python -m tests.integration.boinc_api.official` calls what `Base` can, a line of
JSON in (name, arguments), a line of JSON out.
"""

import ctypes
import json
import mmap
import os
import sys
from ctypes import Structure, byref, c_bool, c_char_p, c_double, c_int, c_void_p
from pathlib import Path

from vm_launcher.boinc.shared_memory import CHANNEL_BYTES, FILE_BYTES

_FLAGS = (
    "normal_thread_priority", "main_program", "check_heartbeat", "handle_process_control",
    "send_status_msgs", "direct_process_action", "multi_thread", "multi_process",
)  # fmt: skip


class Options(Structure):
    _fields_ = [(name, c_int) for name in _FLAGS]


class Status(Structure):
    _fields_ = [
        ("no_heartbeat", c_int),
        ("suspended", c_int),
        ("quit_request", c_int),
        ("reread_init_data_file", c_int),
        ("abort_request", c_int),
        ("working_set_size", c_double),
        ("max_working_set_size", c_double),
        ("network_suspended", c_int),
    ]


class Application:
    """What a wrapper calls (libboinc_api), in the process that is the task."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL("libboinc_api.so.7")
        self._report = self._library._Z27boinc_report_app_status_auxdddidd
        self._report.argtypes = [c_double, c_double, c_double, c_int, c_double, c_double]
        self._finish = self._library._Z20boinc_finish_messageiPKcb
        self._finish.argtypes = [c_int, c_char_p, c_bool]
        self._postpone = self._library._Z20boinc_temporary_exitiPKcb
        self._postpone.argtypes = [c_int, c_char_p, c_bool]
        self._library.boinc_fraction_done.argtypes = [c_double]

    def start(self, *, send_status: bool) -> int:
        options = Options(
            main_program=1,
            check_heartbeat=1,
            handle_process_control=1,
            send_status_msgs=send_status,
        )
        return int(self._library.boinc_init_options(byref(options)))

    def is_standalone(self) -> bool:
        return bool(self._library.boinc_is_standalone())

    def status(self) -> Status:
        found = Status()
        self._library.boinc_get_status(byref(found))
        return found

    def wu_cpu_time(self) -> float:
        seconds = c_double()
        self._library._Z17boinc_wu_cpu_timeRd(byref(seconds))
        return seconds.value

    def report(self, cpu: float, checkpoint: float, fraction: float, pid: int) -> bool:
        return int(self._report(cpu, checkpoint, fraction, pid, 0, 0)) == 0

    def fraction_done(self, fraction: float) -> None:
        self._library.boinc_fraction_done(fraction)

    def need_network(self) -> None:
        self._library.boinc_need_network()

    def trickle_up(self, variety: str, body: str) -> None:
        self._library.boinc_send_trickle_up(variety.encode(), body.encode())

    def trickle_down(self) -> str | None:
        """The name of a file."""
        name = ctypes.create_string_buffer(256)
        found = self._library.boinc_receive_trickle_down(name, len(name))
        return name.value.decode() if found else None

    def offer_page(self, url: str) -> None:
        self._library.boinc_web_graphics_url(url.encode())

    def finish(self, code: int, message: str, *, notice: bool) -> None:
        """Ends the process."""
        self._finish(code, message.encode() or None, notice)

    def postpone(self, seconds: int, reason: str, *, notice: bool) -> None:
        """Ends the process."""
        self._postpone(seconds, reason.encode(), notice)


class Base:
    """What client and applications share (libboinc)."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL("libboinc.so.7")
        self._send = self._library._ZN11MSG_CHANNEL8send_msgEPKc
        self._send.argtypes, self._send.restype = [c_void_p, c_char_p], c_bool
        self._receive = self._library._ZN11MSG_CHANNEL7get_msgEPc
        self._receive.argtypes, self._receive.restype = [c_void_p, c_char_p], c_bool

    def send(self, memory: str, channel: int, text: str) -> bool:
        return bool(self._send(_channel(memory, channel), text.encode()))

    def receive(self, memory: str, channel: int) -> str | None:
        text = ctypes.create_string_buffer(CHANNEL_BYTES)
        return text.value.decode() if self._receive(_channel(memory, channel), text) else None

    def resolve(self, slot: str, name: str) -> str:
        os.chdir(slot)
        path = ctypes.create_string_buffer(4096)
        self._library.boinc_resolve_filename(name.encode(), path, len(path))
        return path.value.decode()

    def rewrite_init_data(self, source: str, target: str) -> None:
        """Read by the library, and written as the client writes it."""
        data = ctypes.create_string_buffer(1 << 20)
        self._call("_ZN13APP_INIT_DATAC1Ev", data)
        with_file = ctypes.CDLL(None)
        with_file.fopen.argtypes, with_file.fopen.restype = [c_char_p, c_char_p], c_void_p
        with_file.fclose.argtypes = [c_void_p]
        for name, path, mode in (
            ("_Z20parse_init_data_fileP8_IO_FILER13APP_INIT_DATA", source, b"r"),
            ("_Z20write_init_data_fileP8_IO_FILER13APP_INIT_DATA", target, b"w"),
        ):
            file = with_file.fopen(path.encode(), mode)
            assert self._call(name, file, data) == 0, name
            with_file.fclose(file)

    def try_lock(self, path: str) -> int:
        """0 if taken; it is held until the process ends."""
        lock = ctypes.create_string_buffer(64)
        self._call("_ZN9FILE_LOCKC1Ev", lock)
        return self._call(
            "_ZN9FILE_LOCK4lockEPKc", lock, ctypes.create_string_buffer(path.encode())
        )

    def _call(self, name: str, *arguments: object) -> int:
        function = getattr(self._library, name)
        function.argtypes = [c_void_p] * len(arguments)
        return int(function(*arguments))


def _channel(memory: str, channel: int) -> "ctypes.Array[ctypes.c_char]":
    with Path(memory).open("r+b") as file:
        mapped = mmap.mmap(file.fileno(), FILE_BYTES)
    return (ctypes.c_char * CHANNEL_BYTES).from_buffer(mapped, channel * CHANNEL_BYTES)


def main() -> None:
    base = Base()
    for line in sys.stdin:
        name, *arguments = json.loads(line)
        print(json.dumps(getattr(base, name)(*arguments)), flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
