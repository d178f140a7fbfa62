"""The real BOINC client, in a directory of its own, as a volunteer has it."""

from __future__ import annotations

import asyncio
import pwd
import secrets
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Self

from tests.harness.boinc.gui_rpc import GuiRpc, GuiRpcError
from tests.harness.boinc.leftovers import kill_all, processes_of
from tests.harness.boinc.patience import until
from tests.harness.boinc.remote import Remote
from tests.harness.boinc.settings import Preferences, cc_config, preferences
from tests.harness.boinc.xml import block, line
from tests.harness.programs import free_port

_PROGRAM = "/usr/bin/boinc"
_QUIT_SECONDS = 75.0  # the client gives its tasks 60
_ANSWER_SECONDS = 20.0
_END_SECONDS = 5.0


class BoincClient(Remote):
    """Started and stopped at will on the same data.

    `root` is a directory of its own: whatever process names it is taken for one of the client's.
    `options` go into cc_config.xml (`ncpus`, say), `preferences` into the volunteer's settings
    on this computer. With `attached` (URL and account key) it knows the project before its start,
    as a client does that had seen the project's page before: five seconds less. `environment`
    goes before the usual one. As `user` it has that user's rights and owns its directory.
    """

    def __init__(
        self,
        root: Path,
        *,
        options: Mapping[str, float | int] | None = None,
        preferences: Preferences | None = None,
        attached: tuple[str, str] | None = None,
        environment: Mapping[str, str] | None = None,
        user: str | None = None,
    ) -> None:
        port, password = free_port(), secrets.token_hex(8)
        super().__init__(root, GuiRpc(port, password))
        self.port = port
        self.password = password
        self.log = root / "client.log"
        self._options = dict(options or {})
        self._preferences = dict(preferences or {})
        self._own_environment = dict(environment or {})
        self._user = user
        self._process: asyncio.subprocess.Process | None = None
        self._write_files()
        if attached is not None:
            self._write_attached(*attached)

    # life

    async def start(self) -> None:
        if self._user is not None:
            _give(self.root, self._user)
        with self.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *(_PROGRAM, "--dir", str(self.data), "--gui_rpc_port", str(self.port)),
                cwd=self.data,
                env=self._environment(),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                **self._account(),
            )
        await until(self._answers, "the client answers", _ANSWER_SECONDS)

    @property
    def pid(self) -> int:
        return 0 if self._process is None else self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.returncode is None

    async def quit(self) -> None:
        """As at the end of a volunteer's day: tasks are asked to leave; until it is gone."""
        await self.call("<quit/>")
        await self._gone(_QUIT_SECONDS)

    async def kill9(self) -> None:
        """The client alone; its tasks have to notice."""
        if self._process is not None and self.running:
            self._process.kill()
            await self._gone(_END_SECONDS)

    async def close(self) -> None:
        """Ends the client and whatever was started below it, come what may."""
        if self._process is not None and self.running:
            self._process.send_signal(signal.SIGTERM)
            with suppress(TimeoutError):
                await self._gone(_END_SECONDS)
        await self.kill9()
        await self.rpc.close()
        await until(self._nobody_left, "every process killed", _END_SECONDS)

    async def __aenter__(self) -> Self:
        try:
            await self.start()
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is not None:
            error.add_note(f"the client's last words:\n{self.last_words()}")
        await self.close()

    def last_words(self, lines: int = 60) -> str:
        said = self.log.read_text(errors="replace").splitlines()
        return "\n".join([line for line in said if "[work_fetch]" not in line][-lines:])

    async def boinccmd(self, *words: str) -> str:
        """What the command line tool prints; raises GuiRpcError with its complaint."""
        process = await asyncio.create_subprocess_exec(
            *("/usr/bin/boinccmd", "--host", f"127.0.0.1:{self.port}"),
            *("--passwd", self.password, *words),
            cwd=self.root,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        output = (await process.communicate())[0].decode(errors="replace")
        if process.returncode:
            raise GuiRpcError(f"boinccmd {' '.join(words)}: {output}")
        return output

    # settings

    async def prefer(self, **changes: float | int) -> None:
        """The volunteer changes settings, such as `cpu_usage_limit`, while the client runs."""
        self._preferences |= changes
        self._write_files()
        await self.call("<read_global_prefs_override/>")

    def install_application(self, url: str, app_info: str, files: Mapping[str, bytes]) -> None:
        """An application of the volunteer's own (anonymous platform); before the start."""
        directory = self.project_directory(url)
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "app_info.xml").write_text(app_info)
        for name, content in files.items():
            (directory / name).write_bytes(content)
            (directory / name).chmod(0o755)

    def _write_files(self) -> None:
        for directory in (self.data, *self.scratch):
            directory.mkdir(parents=True, exist_ok=True)
        (self.data / "cc_config.xml").write_text(cc_config(self._options))
        override = self.data / "global_prefs_override.xml"
        override.write_text(preferences(self._preferences))
        (self.data / "gui_rpc_auth.cfg").write_text(self.password)
        (self.data / "gui_rpc_auth.cfg").chmod(0o600)

    def _write_attached(self, url: str, key: str) -> None:
        account = block("account", line("master_url", url), line("authenticator", key))
        self.account_file(url).write_text(account)
        contact = line("scheduler_url", f"{url}cgi/sched") + line("sched_rpc_pending", 6)
        project = block("project", line("master_url", url), contact)
        # without its computer's speed a client makes no contact in its first five seconds
        speed = (line(name, 1e9) for name in ("p_fpops", "p_iops", "p_membw", "p_calculated"))
        words = ("major_version", "minor_version", "release")
        numbers = zip(words, _version().split("."), strict=True)
        version = (line(f"core_client_{word}", number) for word, number in numbers)
        state = block("client_state", block("host_info", *speed), project, *version)
        (self.data / "client_state.xml").write_text(state)

    def _environment(self) -> dict[str, str]:
        """Nothing of the tests' own; what a task leaves in its home or in /tmp is seen."""
        places = zip(("TMPDIR", "HOME", "XDG_RUNTIME_DIR"), self.scratch, strict=True)
        named = {name: str(place) for name, place in places}
        usual = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8"}
        return usual | named | self._own_environment

    def _account(self) -> dict[str, Any]:
        if self._user is None:
            return {}
        entry = pwd.getpwnam(self._user)
        return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}

    async def _answers(self) -> bool | None:
        if not self.running:
            raise AssertionError(f"the client has ended: {self.log.read_text(errors='replace')}")
        with suppress(OSError):
            await self.call("<exchange_versions/>")
            return True
        return None

    async def _nobody_left(self) -> bool:
        left = list(processes_of(self.root))
        kill_all(left)
        return not left

    async def _gone(self, seconds: float) -> None:
        if self._process is not None:
            # in Debian's Python 3.11.2 asyncio.timeout raises CancelledError, not TimeoutError, in
            # the clean-up of a task that was cancelled
            await asyncio.wait_for(self._process.wait(), seconds)


def _give(directory: Path, user: str) -> None:
    for path in (directory, *directory.rglob("*")):
        shutil.chown(path, user, pwd.getpwnam(user).pw_gid)


def _version() -> str:
    """A client fetches the pages of its projects anew when another version wrote its state."""
    told = subprocess.run((_PROGRAM, "--version"), capture_output=True, text=True, check=True)
    return told.stdout.split()[0]


@asynccontextmanager
async def boinc_client(
    root: Path,
    *,
    options: Mapping[str, float | int] | None = None,
    preferences: Preferences | None = None,
    attached: tuple[str, str] | None = None,
) -> AsyncIterator[BoincClient]:
    """A running client, ended with all its processes also when the test fails."""
    client = BoincClient(root, options=options, preferences=preferences, attached=attached)
    async with client:
        yield client
