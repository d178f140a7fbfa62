"""Runs the repository's commands in a bare Debian 12, as a new user would: `make fresh`.

Plain standard library, because it runs on Debian's own Python before any set-up. The bare system is
a directory made by mmdebstrap; commands run in it under namespaces of their own for mounts and
processes, so that whatever ends this program, no mount and no process remains.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TextIO

from deploy.setup.machine import apt_options, apt_sources, carried_environment, carry_files

TOP = Path(__file__).resolve().parents[2]
CLONE = "/root/cloud-copilot"
INCLUDE = "git,make,ca-certificates"
NEEDED_BYTES = 6_000_000_000
NAMESPACES = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--propagation", "private"]

# Runs as process 1 of its namespace. Whatever is still there after the command was left behind.
# The directory becomes the root itself, not a chroot: only then mount namespaces work inside.
RUN = r"""
set -u
root=$1; shift
mount --bind "$root" "$root" && mount --rbind /dev "$root/dev" && mount --rbind /sys "$root/sys" \
    && mount -t proc proc "$root/proc" \
    && mount -t tmpfs -o nosuid,nodev shm "$root/dev/shm" \
    && mkdir -p "$root/.outside" && cd "$root" && pivot_root . .outside && cd / || exit 70
/bin/umount -l /.outside && /bin/rmdir /.outside || exit 70
exec /usr/bin/env -i "$@"
"""
INSIDE = r"""
cd "$1" || exit 70
make "$2"
code=$?
left() {
    for dir in /proc/[0-9]*; do
        { read -r stat <"$dir/stat"; } 2>/dev/null || continue
        case $stat in "$$ "* | *") Z "*) ;; *) echo "left running: ${stat%%)*})" ;; esac
    done
}
tries=10
while [ -n "$(left)" ] && [ "$tries" -gt 0 ]; do tries=$((tries - 1)); sleep 0.2; done
left
exit "$code"
"""


class FreshError(Exception):
    """What went wrong, in a sentence for the person at the terminal."""


def say(text: str) -> None:
    print(f"fresh: {text}", flush=True)


def run(args: list[str], log: TextIO, stdin: str = "", cwd: Path | None = None) -> int:
    """Runs a command with its output shown and kept in the log, and returns its exit code."""
    with subprocess.Popen(
        args,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        cwd=cwd,
    ) as process:
        assert process.stdin is not None and process.stdout is not None  # noqa: S101 - both piped
        try:
            process.stdin.write(stdin)
            process.stdin.close()
            for line in process.stdout:
                sys.stdout.write(line)
                sys.stdout.flush()
                log.write(line)
                log.flush()
            return process.wait()
        except BaseException:
            process.kill()
            raise


def bootstrap(root: Path, log: TextIO) -> None:
    """Makes the bare system with nothing in it but what the README says comes first."""
    options = [f"--aptopt={option}" for option in apt_options()]
    command = [*NAMESPACES, "mmdebstrap", "--mode=root", "--variant=minbase"]
    command += [f"--include={INCLUDE}", *options, "bookworm", str(root), "-"]
    if run(command, log, stdin=apt_sources()) != 0:
        raise FreshError("mmdebstrap could not make the bare system; its output is above")
    if (root / "usr/sbin/policy-rc.d").exists():
        raise FreshError(
            "the bare system has a policy-rc.d of its own, so this would prove nothing"
        )
    carry_files(root)
    if run(["chroot", str(root), "update-ca-certificates"], log) != 0:
        raise FreshError("update-ca-certificates failed in the bare system")


def clone(root: Path, log: TextIO) -> str:
    """Clones the committed state and returns its short commit id."""
    git = ["git", "-c", "safe.directory=*", "-C", str(TOP)]
    commit = subprocess.run(
        [*git, "rev-parse", "--short", "HEAD"], check=True, capture_output=True, text=True
    ).stdout.strip()
    dirty = subprocess.run(
        [*git, "status", "--porcelain"], check=True, capture_output=True, text=True
    ).stdout
    if dirty:
        say(f"what is not committed ({len(dirty.splitlines())} files) is not part of this run")
    bundle = root / "root/repository.bundle"
    subprocess.run([*git, "bundle", "create", "--quiet", str(bundle), "HEAD"], check=True)
    inside = ["chroot", str(root), "git", "-c", "advice.detachedHead=false"]
    inside += ["clone", "--quiet", "/root/repository.bundle", CLONE]
    if run(inside, log) != 0:
        raise FreshError("git could not clone the repository in the bare system")
    bundle.unlink()
    return commit


def enabled_units(root: Path) -> set[str]:
    places = [root / "etc/systemd/system", root / "etc/systemd/user"]
    links = {
        str(p.relative_to(root)) for place in places for p in place.rglob("*") if p.is_symlink()
    }
    return links | {str(p.relative_to(root)) for p in root.glob("etc/rc?.d/S*")}


def used_bytes(root: Path) -> int:
    done = subprocess.run(["du", "-sxB1", str(root)], check=True, capture_output=True, text=True)
    return int(done.stdout.split()[0])


def run_target(root: Path, target: str, out: Path) -> tuple[str, list[str]]:
    """Runs one make target inside; returns a summary line and the complaints."""
    enabled, used = enabled_units(root), used_bytes(root)
    variables = [f"{name}={value}" for name, value in carried_environment(root).items()]
    command = [*NAMESPACES, "sh", "-c", RUN, "sh", str(root), *variables]
    command += ["sh", "-c", INSIDE, "sh", CLONE, target]
    began = time.monotonic()
    with (out / f"{target}.log").open("w") as log:
        code = run(command, log)
    took = time.monotonic() - began
    text = (out / f"{target}.log").read_text(errors="replace")
    complaints = [line for line in text.splitlines() if line.startswith("left running: ")]
    complaints += [f"left enabled: {unit}" for unit in sorted(enabled_units(root) - enabled)]
    if (root / "usr/sbin/policy-rc.d").exists():
        complaints.append("left behind: /usr/sbin/policy-rc.d")
    if code != 0:
        complaints.append(f"make {target} ended with exit code {code}")
    grown = (used_bytes(root) - used) / 1e6
    return f"make {target}: {took:.0f} s, {grown:.0f} MB more on disk", complaints


@contextmanager
def bare_system(cache: Path) -> Iterator[Path]:
    """A directory for the bare system that is gone afterwards, one at a time."""
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "fresh.lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("waiting for another `make fresh` to end")
            fcntl.flock(lock, fcntl.LOCK_EX)
        root = cache / "fresh"
        remove(root)
        if shutil.disk_usage(cache).free < NEEDED_BYTES:
            raise FreshError(f"{NEEDED_BYTES / 1e9:.0f} GB of free disk are needed in {cache}")
        try:
            yield root
        finally:
            say("removing the bare system")
            remove(root)


def remove(root: Path) -> None:
    if root.exists():
        subprocess.run(["rm", "-rf", "--one-file-system", str(root)], check=True)


def keep_results(root: Path, out: Path) -> None:
    made = root / CLONE.lstrip("/") / "demo-out"
    if made.is_dir():
        shutil.copytree(made, out / "demo-out", dirs_exist_ok=True)


def give_back(out: Path) -> None:
    """Files made under sudo belong to who called it."""
    if "SUDO_UID" in os.environ:
        owner = f"{os.environ['SUDO_UID']}:{os.environ.get('SUDO_GID', '')}"
        subprocess.run(["chown", "-R", owner, str(out)], check=True)


def fresh(targets: list[str], cache: Path) -> int:
    out = TOP / "fresh-out"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    summary: list[str] = []
    complaints: list[str] = []
    with bare_system(cache) as root:
        say("making a bare Debian 12")
        with (out / "bootstrap.log").open("w") as log:
            bootstrap(root, log)
            commit = clone(root, log)
        summary.append(f"commit {commit}, bare system {used_bytes(root) / 1e6:.0f} MB")
        for target in targets:
            say(f"make {target}")
            line, found = run_target(root, target, out)
            summary.append(line)
            complaints += found
        keep_results(root, out)
    summary += complaints or ["nothing left running, enabled or changed"]
    (out / "summary.txt").write_text("\n".join(summary) + "\n")
    give_back(out)
    for line in summary:
        say(line)
    return 1 if complaints else 0


def become_root(argv: list[str], cache: Path) -> None:
    """Goes on as root through sudo; mounts and mmdebstrap's root mode need it."""
    if os.geteuid() == 0:
        return
    if shutil.which("sudo") is None:
        raise FreshError("this needs root (it mounts and changes root): run it as root")
    keep = ",".join(carried_environment(Path("/")))
    command = [
        "sudo",
        f"--preserve-env={keep}",
        sys.executable,
        "-m",
        "deploy.setup.fresh",
        "--cache",
        str(cache),
    ]
    os.chdir(TOP)
    os.execvp("sudo", command + argv)  # noqa: S606 - fixed program


def on_signal(number: int, _frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


def main() -> int:
    parser = argparse.ArgumentParser(prog="make fresh", description=__doc__)
    parser.add_argument("targets", nargs="*", default=["demo", "test"], help="make targets")
    default = TOP / os.environ.get("COPILOT_CACHE", ".cache")
    parser.add_argument("--cache", type=Path, default=default)
    options = parser.parse_args()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, on_signal)
    try:
        become_root(options.targets, options.cache)
        return fresh(options.targets, options.cache)
    except FreshError as error:
        say(str(error))
        return 1
    except KeyboardInterrupt:
        say("stopped")
        return 130


if __name__ == "__main__":
    sys.exit(main())
