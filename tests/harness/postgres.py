"""A PostgreSQL of the tests' own: Debian's program, an unprivileged user, a temporary directory.

It listens on a unix socket only and keeps fsync on; databases are made from a template, so a test
has a fresh one in a moment.
"""

import contextlib
import itertools
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

BIN = Path("/usr/lib/postgresql/15/bin")
_SETTINGS = {
    "listen_addresses": "",
    "fsync": "on",
    "synchronous_commit": "on",
    "max_connections": "100",
    "shared_buffers": "64MB",
    "logging_collector": "off",
}
_NAMES = itertools.count(1)


class Postgres:
    """One cluster. `start` and `stop` may be called again and again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.data = folder / "data"
        self.log = folder / "postgres.log"
        self.port = 5432  # names the socket only
        self._process: subprocess.Popen[bytes] | None = None
        self._user = _unprivileged()

    def make(self) -> None:
        """Makes the cluster. The temporary directory becomes the database user's."""
        self.folder.chmod(0o755)
        if self._user:
            os.chown(self.folder, self._user.pw_uid, self._user.pw_gid)
        self.run("initdb", "--pgdata", str(self.data), "--username", "copilot", "--auth", "trust",
                 "--encoding", "UTF8", "--locale", "C.UTF-8", "--no-instructions")  # fmt: skip

    def run(self, program: str, *arguments: str) -> str:
        """One of PostgreSQL's programs, as the database's user; its stdout."""
        done: subprocess.CompletedProcess[str] = subprocess.run(
            [BIN / program, *arguments],
            **self._identity(),
            env={"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", "PGHOST": str(self.folder)},
            cwd=self.folder,
            capture_output=True,
            check=False,
            text=True,
        )
        assert done.returncode == 0, f"{program}: {done.stderr}\n{self._last_words()}"
        return done.stdout

    def _last_words(self) -> str:
        """Of the server: it may have ended."""
        ended = self._process.poll() if self._process else None
        said = self.log.read_text(errors="replace")[-4000:] if self.log.exists() else ""
        return f"server's exit code {ended}; it said: {said}"

    def _identity(self) -> dict[str, Any]:
        if self._user is None:
            return {}
        return {"user": self._user.pw_uid, "group": self._user.pw_gid, "extra_groups": []}

    def start(self) -> None:
        """Returns once connections are accepted."""
        options = [f"--{name}={value}" for name, value in _SETTINGS.items()]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [BIN / "postgres", "-D", str(self.data), "-k", str(self.folder), *options],
                **self._identity(),
                stdout=log,
                stderr=log,
                cwd=self.folder,
                start_new_session=True,
            )
        until = time.monotonic() + 60
        while not self._ready():
            assert self._process.poll() is None, self.log.read_text()
            assert time.monotonic() < until, self.log.read_text()
            time.sleep(0.05)

    def _ready(self) -> bool:
        return (
            subprocess.run(
                [BIN / "pg_isready", "-q", "-h", str(self.folder), "-d", "postgres"], check=False
            ).returncode
            == 0
        )

    @property
    def pid(self) -> int:
        """Of the postmaster."""
        assert self._process is not None
        return self._process.pid

    def stop(self, how: int = signal.SIGINT) -> None:
        """SIGINT ends sessions and shuts down; SIGQUIT is a crash, as after a power cut."""
        process, self._process = self._process, None
        if process is not None and process.poll() is None:
            process.send_signal(how)
            process.wait(timeout=60)

    def url(self, database: str) -> str:
        return f"postgresql://copilot@/{database}?host={self.folder}"

    def database(self) -> str:
        """A fresh database's URL."""
        name = f"test_{next(_NAMES)}"
        self.run("createdb", "--username", "copilot", name)
        return self.url(name)


def _unprivileged() -> "pwd.struct_passwd | None":
    """PostgreSQL refuses to be root's: then it is the user of Debian's package, or nobody."""
    if os.geteuid() != 0:
        return None
    with contextlib.suppress(KeyError):
        return pwd.getpwnam("postgres")
    return pwd.getpwnam("nobody")


@contextlib.contextmanager
def cluster() -> Iterator[Postgres]:
    """A running one; nothing is left afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="copilot-pg-"))  # short: it holds a unix socket
    postgres = Postgres(folder)
    try:
        postgres.make()
        postgres.start()
        yield postgres
    finally:
        postgres.stop(signal.SIGQUIT)
        shutil.rmtree(folder)
