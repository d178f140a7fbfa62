"""What a person sees of deploy/setup/setup.sh. The script is real; programs that would need root,
an empty machine or a full disk are replaced on PATH."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest

KEYRING = "2023.3+deb12u2"


class Machine:
    """A machine whose state the stubs describe, with a cache of its own."""

    def __init__(self, tmp: Path, repository: Path) -> None:
        self.cache = tmp / "cache directory"
        self.script = repository / "deploy/setup/setup.sh"
        self.called = tmp / "called"
        self._bin = tmp / "bin"
        self._bin.mkdir()
        self._packages = dict.fromkeys(self._wanted(), KEYRING)
        self.set_packages()

    def _wanted(self) -> list[str]:
        lines = (self.script.parent / "packages.txt").read_text().splitlines()
        return [line.split()[0] for line in lines if line.split("#")[0].strip()]

    def stub(self, name: str, body: str) -> None:
        path = self._bin / name
        path.write_text(f"#!/bin/sh\n{body}\n")
        path.chmod(0o755)

    def set_packages(self, **changed: str) -> None:
        """Installed are all that are wanted, except for the changes; "" is not installed."""
        names = {name.replace("_", "-"): version for name, version in changed.items()}
        rows = [
            f"= {name} {'installed' if version else 'config-files'} {version or '1'}"
            for name, version in (self._packages | names).items()
        ]
        self.stub("dpkg-query", "cat <<'EOF'\n" + "\n".join(rows) + "\nEOF")

    def be_user(self, sudo: str) -> None:
        self.stub("id", "echo 1000")
        self.stub("sudo", f'echo "$*" >>"{self.called}"\n{sudo}')

    def start(self, *args: str) -> subprocess.Popen[str]:
        environment = os.environ | {
            "PATH": f"{self._bin}:{os.environ['PATH']}",
            "COPILOT_CACHE": str(self.cache),
        }
        return subprocess.Popen(
            ["sh", str(self.script), *args],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def run(self, *args: str) -> subprocess.CompletedProcess[str]:
        process = self.start(*args)
        out, err = process.communicate(timeout=60)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)


@pytest.fixture
def machine(tmp_path: Path, repository: Path) -> Machine:
    return Machine(tmp_path, repository)


def test_silent_when_nothing_is_missing(machine: Machine) -> None:
    machine.be_user("exit 1")
    done = machine.run("packages")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_without_root_prints_one_line_to_run(machine: Machine) -> None:
    machine.be_user("exit 1")
    machine.set_packages(qemu_utils="", cpio="")
    done = machine.run("demo")
    assert done.returncode == 2
    line = "apt-get update && apt-get install --no-install-recommends qemu-utils cpio"
    assert done.stderr.splitlines()[-1] == line
    assert not (machine.cache / "venv").exists()


def test_only_the_tests_want_servers(machine: Machine) -> None:
    machine.be_user("exit 1")
    machine.set_packages(cpio="")
    assert machine.run("demo").stderr.splitlines()[-1].endswith(" cpio")
    line = machine.run("test").stderr.splitlines()[-1]
    wanted = {"cpio", "postgresql-15", "prosody", "ejabberd", "binutils", "mariadb-server-core"}
    assert wanted <= set(line.split())


def test_old_keyring_counts_as_missing(machine: Machine) -> None:
    machine.be_user("exit 1")
    machine.set_packages(debian_archive_keyring="2021.1.1")
    assert machine.run("packages").stderr.splitlines()[-1].endswith(" debian-archive-keyring")


def test_further_packages_by_name(machine: Machine) -> None:
    machine.be_user("exit 1")
    assert machine.run("packages", "mmdebstrap").stderr.splitlines()[-1].endswith(" mmdebstrap")


def test_sudo_without_password_is_used(machine: Machine) -> None:
    machine.be_user("exit 0")
    machine.set_packages(cpio="")
    done = machine.run("packages")
    assert done.returncode == 0
    installer = machine.script.parent / "install-packages.sh"
    assert machine.called.read_text().splitlines()[-1] == f"-n sh {installer} cpio"


def test_failed_installation_shows_the_end_of_its_output(machine: Machine) -> None:
    machine.be_user('[ "$2" = true ] || { echo "E: no such mirror"; exit 100; }')
    machine.set_packages(cpio="")
    done = machine.run("packages")
    assert done.returncode == 1
    assert "E: no such mirror" in done.stderr
    assert str(machine.cache / "setup.log") in done.stderr


def test_too_little_disk_is_refused_before_anything_else(machine: Machine) -> None:
    machine.stub("df", "printf 'Filesystem 1024-blocks Used Available\\n/dev/x 9 9 2000000\\n'")
    machine.set_packages(cpio="")
    done = machine.run("demo")
    assert done.returncode == 3
    assert "1953 MiB" in done.stderr
    assert "COPILOT_CACHE" in done.stderr
    assert not (machine.cache / "setup.log").exists()


def test_second_run_waits_and_says_for_whom(machine: Machine) -> None:
    machine.cache.mkdir()
    with (machine.cache / "setup.lock").open("w") as lock:
        lock.write("process 4711, since noon\n")
        lock.flush()
        fcntl.flock(lock, fcntl.LOCK_EX)
        process = machine.start("packages")
        assert process.stdout is not None
        waiting = process.stdout.readline()
        assert process.poll() is None
    out, _ = process.communicate(timeout=60)
    assert waiting == "setup: waiting for another run: process 4711, since noon\n"
    assert (process.returncode, out) == (0, "")


def test_stopped_in_the_middle_leaves_no_half_environment(machine: Machine) -> None:
    process = machine.start("demo")
    while not (machine.cache / "venv/bin").exists():
        with suppress(subprocess.TimeoutExpired):
            pytest.fail(f"ended early with {process.wait(0.02)}")
    os.killpg(process.pid, signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "the next run goes on" in err
    assert not (machine.cache / "venv").exists()
    assert list((machine.cache / "stamps").iterdir()) == []


def test_unknown_word_is_answered_with_the_usage(machine: Machine) -> None:
    done = machine.run("everything")
    assert done.returncode == 64
    assert "demo | test" in done.stderr
