"""Opens the ctrl port, tells the test about the guest and answers it, a line of JSON each."""

import json
import os
import sys
import time
from pathlib import Path


def port(name: str) -> str:
    for entry in Path("/sys/class/virtio-ports").iterdir():
        if (entry / "name").read_text().strip() == name:
            return f"/dev/{entry.name}"
    raise SystemExit(f"no port {name}")


def read(path: str) -> str:
    return Path(path).read_text().strip()


def look() -> dict[str, object]:
    started = time.monotonic()
    import sqlite3
    import ssl

    import aiohttp
    import cryptography.hazmat.primitives.asymmetric.ed25519  # noqa: F401
    import h2.connection
    import pydantic

    return {
        "type": "facts",
        "import_seconds": round(time.monotonic() - started, 2),
        "python": sys.version.split()[0],
        "versions": [aiohttp.__version__, pydantic.VERSION, h2.__version__, sqlite3.sqlite_version],
        "certificates": len(ssl.create_default_context().get_ca_certs()),
        "cached": [bool(m.__cached__ and Path(m.__cached__).exists()) for m in (ssl, pydantic)],
        "mounts": [line.split()[:4] for line in read("/proc/mounts").splitlines()],
        "controllers": read("/sys/fs/cgroup/cgroup.subtree_control").split(),
        "cgroup": read("/proc/self/cgroup"),
        "oom_score_adj": read("/proc/self/oom_score_adj"),
        "memory": {
            line.split(":")[0]: int(line.split()[1])
            for line in read("/proc/meminfo").splitlines()
            if line.startswith(("MemTotal", "MemAvailable"))
        },
        "rss_kib": next(
            int(line.split()[1])
            for line in read("/proc/self/status").splitlines()
            if "VmRSS" in line
        ),
        "interfaces": sorted(path.name for path in Path("/sys/class/net").iterdir()),
        "scratch": os.statvfs("/scratch").f_bavail * os.statvfs("/scratch").f_frsize,
        "sysctl": {
            name: read(f"/proc/sys/{name}")
            for name in ("kernel/sysrq", "kernel/dmesg_restrict", "kernel/panic")
        },
    }


def answer(word: str) -> dict[str, object]:
    if word == "time":
        return {"type": word, "monotonic": time.monotonic()}
    start, cpu_start = time.monotonic(), time.process_time()
    while time.monotonic() < start + 4:
        pass
    cpu_seconds, seconds = time.process_time() - cpu_start, time.monotonic() - start
    return {"type": word, "cpu_seconds": cpu_seconds, "seconds": seconds}


def main() -> None:
    with Path(port("org.copilot.ctrl")).open("r+b", buffering=0) as ctrl:
        hello = {"type": "hello", "uptime": float(read("/proc/uptime").split()[0])}
        ctrl.write(json.dumps(hello).encode() + b"\n")
        sys.stdout.write("test agent: hello\n")
        ctrl.write(json.dumps(look()).encode() + b"\n")
        while word := ctrl.readline().decode().strip():
            ctrl.write(json.dumps(answer(word)).encode() + b"\n")


main()
