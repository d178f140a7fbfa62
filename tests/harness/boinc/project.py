"""A BOINC project: serves what a project directory holds to real clients, on loopback.

It is no BOINC server: one volunteer, no database, no transitioner; credit is granted at the report,
by a function of the test. Formats and rules of the directory are those of BOINC's own tools.
"""

from __future__ import annotations

import asyncio
import itertools
import secrets
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from aiohttp import web

from tests.harness.boinc.board import Board
from tests.harness.boinc.requests import Trickle
from tests.harness.boinc.scheduler import Host, Scheduler, Shelf, Validate
from tests.harness.boinc.upload import FILE_NAME, UploadHandler, refusal
from tests.harness.boinc.versions import AppVersion, read_versions
from tests.harness.boinc.work import Report, Result, Templates
from tests.harness.boinc.xml import line
from tests.harness.programs import free_port
from vm_launcher.boinc_project.signing import PrivateKey, PublicKey

_PATIENCE = 60.0
_PIECE = 65_536
_MOST_UPLOAD = 1 << 30


@dataclass
class Faults:
    """What goes wrong at the project while it is set."""

    wrong_signatures: set[str] = field(default_factory=set)
    """Physical names of application files."""
    corrupt: set[str] = field(default_factory=set)
    """Physical names whose first byte is another one on its way."""
    missing: set[str] = field(default_factory=set)
    refuse_uploads: bool = False
    """For now: clients try again."""
    scheduler_down: bool = False
    no_work: bool = False
    download_bytes_per_second: float | None = None


class BoincProject:
    """Started on `directory`; `validate` gets each successful report and says what it is worth.

    `usage` says for an application version what its plan class does: see `processors`.
    """

    def __init__(
        self,
        directory: Path,
        *,
        validate: Validate | None = None,
        usage: Callable[[AppVersion], str] | None = None,
    ) -> None:
        self.directory = directory
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}/"
        self.authenticator = secrets.token_hex(16)
        self.faults = Faults()
        self.board = Board()
        _make_missing_keys(directory / "keys")
        keys = directory / "keys"
        self.shelf = Shelf(
            url=self.url,
            project_name="Co-Pilot test",
            authenticator=self.authenticator,
            code_sign_key=(keys / "code_sign_public").read_text(),
            versions=read_versions(directory),
            usage=usage or processors(1),
        )
        self.requests: list[str] = []
        self.downloads: list[str] = []
        self._scheduler = Scheduler(self.shelf, validate, self.board.announce)
        upload_key = PublicKey.from_text((keys / "upload_public").read_text())
        self._uploads = UploadHandler(directory / "upload", upload_key)
        self._salts = itertools.count(1000)
        self._runner: web.AppRunner | None = None

    # life

    async def start(self) -> None:
        application = web.Application(client_max_size=_MOST_UPLOAD)
        application.router.add_get("/", self._master_page)
        application.router.add_get("/get_project_config.php", self._configuration)
        application.router.add_post("/cgi/sched", self._schedule)
        application.router.add_get("/download/{name}", self._download)
        application.router.add_post("/cgi/file_upload_handler", self._upload)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port).start()

    async def stop(self) -> None:
        """As if its computer were off; `start` brings it back with all it knows."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    # what a project does

    def create_work(
        self,
        name: str,
        inputs: Mapping[str, bytes] | None = None,
        *,
        app: str = "copilot",
        command_line: str | None = None,
        results: int = 1,
        **bounds: float,
    ) -> list[str]:
        """A workunit from the templates of `app`; the names of its results.

        `inputs`: content by physical name, in the order of the input template. `bounds` are
        `rsc_fpops_est`, `rsc_disk_bound`, `delay_bound` …, in place of the template's.
        """
        templates = Templates(self.directory, app)
        downloads = f"{self.url}download/"
        workunit = templates.workunit(name, inputs or {}, downloads, command_line, bounds)
        handler = f"{self.url}cgi/file_upload_handler"
        for number in range(results):
            result = templates.result(workunit, number, next(self._salts), handler)
            self.shelf.results[result.name] = result
        self.board.announce(f"made {name}")
        return [f"{name}_{number}" for number in range(results)]

    def reread_versions(self) -> None:
        """As `update_versions`: what was added to the directory goes out with the next task."""
        self.shelf.versions = read_versions(self.directory)

    def send_trickle(self, result: str, text: str) -> None:
        """Told at the next contact of the result's host."""
        self.shelf.results[result].trickles_down.append(text)

    def abort(self, result: str) -> None:
        """The client is told at each contact until it has given the task up."""
        self.shelf.results[result].to_abort = True

    def result(self, name: str) -> Result:
        return self.shelf.results[name]

    @property
    def credit(self) -> float:
        return self.shelf.total_credit

    @property
    def hosts(self) -> dict[int, Host]:
        return self.shelf.hosts

    @property
    def trickles(self) -> list[Trickle]:
        return self.shelf.trickles

    # what a test waits for; `name` is that of a workunit or of one of its results

    async def sent(self, name: str, seconds: float = _PATIENCE) -> Result:
        """Until it was handed out to a host."""

        def look() -> Result | None:
            return next((one for one in self._results(name) if one.host is not None), None)

        return await self.board.until(look, f"{name} sent", seconds)

    async def reported(self, name: str, seconds: float = _PATIENCE) -> Report:
        def look() -> Report | None:
            reports = (result.report for result in self._results(name))
            return next((report for report in reports if report is not None), None)

        return await self.board.until(look, f"{name} reported", seconds)

    async def uploaded(self, name: str, seconds: float = _PATIENCE) -> dict[str, Path]:
        """Until all outputs of one result are here; by logical name."""

        def look() -> dict[str, Path] | None:
            here = self.shelf.uploads
            for result in self._results(name):
                if all(output in here for output in result.outputs.values()):
                    return {named: here[name] for named, name in result.outputs.items()}
            return None

        return await self.board.until(look, f"{name} uploaded", seconds)

    async def trickle(self, count: int = 1, seconds: float = _PATIENCE) -> Trickle:
        """The `count`th one since the start."""

        def look() -> Trickle | None:
            return self.trickles[count - 1] if len(self.trickles) >= count else None

        return await self.board.until(look, f"trickle {count}", seconds)

    async def contacted(self, times: int = 1, seconds: float = _PATIENCE) -> None:
        """Until the scheduler was asked `times` more often than now."""
        wanted = len(self.requests) + times
        await self.board.until(
            lambda: True if len(self.requests) >= wanted else None, "contacted", seconds
        )

    async def downloaded(self, name: str, seconds: float = _PATIENCE) -> None:
        """Until somebody began to download it; `name` is that of the file, with its `.gz`."""
        await self.board.until(
            lambda: True if name in self.downloads else None, f"{name} downloaded", seconds
        )

    def _results(self, name: str) -> list[Result]:
        return [
            result
            for result in self.shelf.results.values()
            if name in (result.name, result.workunit.name)
        ]

    # doors

    async def _master_page(self, request: web.Request) -> web.Response:
        page = f"<html>\n<!--\n<scheduler>{self.url}cgi/sched</scheduler>\n-->\n</html>\n"
        return web.Response(text=page, content_type="text/html")

    async def _configuration(self, request: web.Request) -> web.Response:
        inside = line("name", self.shelf.project_name) + line("master_url", self.url)
        return web.Response(text=f"<project_config>\n{inside}</project_config>\n")

    async def _schedule(self, request: web.Request) -> web.Response:
        if self.faults.scheduler_down:
            raise web.HTTPServiceUnavailable
        text = (await request.read()).decode(errors="replace")
        self.shelf.signatures = self._wrong_signatures()
        self.shelf.most_per_request = 0 if self.faults.no_work else 4
        reply = self._scheduler.answer(text)
        self.requests.append(text)
        self.board.announce("contact")
        return web.Response(text=reply, content_type="text/xml")

    def _wrong_signatures(self) -> dict[str, str]:
        if not self.faults.wrong_signatures:
            return {}
        stranger = PrivateKey.generate()
        return {name: stranger.sign("0" * 32) for name in self.faults.wrong_signatures}

    async def _download(self, request: web.Request) -> web.StreamResponse:
        name = request.match_info["name"]
        path = self._download_path(name)
        if path is None or name in self.faults.missing:
            raise web.HTTPNotFound
        self.downloads.append(name)
        self.board.announce(f"download of {name}")
        if name in self.faults.corrupt:
            content = bytearray(path.read_bytes())
            content[0] ^= 0xFF
            return web.Response(body=bytes(content))
        if self.faults.download_bytes_per_second is not None:
            return await _slowly(request, path, self.faults)
        return web.FileResponse(path, headers={"Content-Type": "application/octet-stream"})

    def _download_path(self, name: str) -> Path | None:
        folders = (self.directory / "download", self.directory / "download_gzip")
        if not FILE_NAME.fullmatch(name):
            return None
        return next((folder / name for folder in folders if (folder / name).is_file()), None)

    async def _upload(self, request: web.Request) -> web.Response:
        body = await request.read()
        if self.faults.refuse_uploads:
            self.board.announce("upload refused")
            return web.Response(text=refusal("no room now"))
        reply, path = self._uploads.answer(body)
        if path is not None:
            self.shelf.uploads[path.name] = path
            self.board.announce(f"upload of {path.name}")
        return web.Response(text=reply)


@asynccontextmanager
async def boinc_project(
    directory: Path,
    *,
    validate: Validate | None = None,
    usage: Callable[[AppVersion], str] | None = None,
) -> AsyncIterator[BoincProject]:
    async with BoincProject(directory, validate=validate, usage=usage) as project:
        yield project


async def _slowly(request: web.Request, path: Path, faults: Faults) -> web.StreamResponse:
    response = web.StreamResponse()
    response.content_length = path.stat().st_size
    await response.prepare(request)
    with path.open("rb") as file:
        while (pace := faults.download_bytes_per_second) is not None:
            if not (piece := file.read(max(1, min(_PIECE, int(pace / 10))))):
                return response
            await response.write(piece)
            await asyncio.sleep(len(piece) / pace)
        await response.write(file.read())
    return response


def processors(count: float, more_words: str = "") -> Callable[[AppVersion], str]:
    """A plan class that uses so many, and appends words such as `--nthreads 2`."""
    words = line("cmdline", more_words) if more_words else ""
    return lambda version: line("avg_ncpus", count) + line("flops", 1e9 * count) + words


def _make_missing_keys(directory: Path) -> None:
    """Both pairs, unless the directory came with them."""
    directory.mkdir(exist_ok=True)
    for name in ("code_sign", "upload"):
        public, private = directory / f"{name}_public", directory / f"{name}_private"
        if public.exists():
            continue
        key = (
            PrivateKey.from_text(private.read_text()) if private.exists() else PrivateKey.generate()
        )
        private.write_text(key.text())
        public.write_text(key.public.text())
