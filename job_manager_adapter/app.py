"""The manager put together: here the concrete objects are built, and only here."""

import asyncio
import contextlib
import fcntl
import logging
import os
import secrets
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

from aiohttp import web
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from copilot_agent.protocol.errors import CopilotError, ErrorCode
from copilot_agent.protocol.frames import Policy
from copilot_agent.protocol.job import JobSpec, JobState
from job_manager_adapter.adapters.base import Adapter
from job_manager_adapter.adapters.queue import QueueAdapter
from job_manager_adapter.adapters.registry import Registry
from job_manager_adapter.api.application import add_api
from job_manager_adapter.api.health import Health, add_health
from job_manager_adapter.api.route import Doors
from job_manager_adapter.files.durable import fresh_file, key_file, private_directory, write_file
from job_manager_adapter.files.links import LinkSigner
from job_manager_adapter.metrics import CONTENT_TYPE, Metrics
from job_manager_adapter.services.build import Services, build_services
from job_manager_adapter.services.context import (
    Config,
    Ed25519Signer,
    Experiment,
    RandomIds,
    SystemClock,
)
from job_manager_adapter.services.files import FileService
from job_manager_adapter.settings import Settings
from job_manager_adapter.store.base import PeerStore, Store, StoreError
from job_manager_adapter.store.records import JobQuery
from job_manager_adapter.store.sqlite import SqliteStore
from job_manager_adapter.transports.http.door import PilotDoor
from job_manager_adapter.transports.http.guard import ConnectionGuard
from job_manager_adapter.transports.http.server import (
    Address,
    HttpServer,
    add_pilot_routes,
    make_application,
    tls_context,
)
from job_manager_adapter.transports.http.tokens import AccessTokens
from job_manager_adapter.transports.xmpp.build import build_component
from job_manager_adapter.transports.xmpp.component import PilotComponent
from job_manager_adapter.transports.xmpp.door import XmppDoor
from job_manager_adapter.views import Role

if TYPE_CHECKING:
    from job_manager_adapter.copilot1 import OriginalAgents

log = logging.getLogger(__name__)

MIB, GIB = 1 << 20, 1 << 30
_CLEAN_SECONDS = 3600.0
_READY_SECONDS = 2.0
_LEADER_SECONDS = 5.0


def product_version() -> str:
    try:
        return version("cloud-copilot")
    except PackageNotFoundError:
        return "0+unknown"


def service_config(settings: Settings) -> Config:
    """The settings that services need, in their form."""
    policy = settings.policy
    return Config(
        experiments={
            name: Experiment(name=name, adapter=item.adapter, options=item.options)
            for name, item in settings.experiments.items()
        },
        policy=Policy(
            heartbeat_seconds=policy.heartbeat_seconds, lease_seconds=policy.lease_seconds
        ),
        retry_seconds=policy.retry_seconds,
        retention_seconds=settings.retention.jobs_days * 86400,
    )


def build_adapters(settings: Settings) -> dict[str, Adapter]:
    """One per experiment. Raises `CopilotError` for an unknown name or a wrong option."""
    registry = Registry({"queue": QueueAdapter})
    return {
        name: registry.build(item.adapter, name, item.options)
        for name, item in settings.experiments.items()
    }


def build_store(settings: Settings) -> tuple[Store, PeerStore | None]:
    """With what it needs where other managers may use the same database."""
    if settings.store.url is None:
        return SqliteStore(settings.database), None
    try:
        from job_manager_adapter.store.postgres import PostgresStore
    except ImportError as error:
        raise CopilotError(
            f"PostgreSQL needs the Python package asyncpg: {error}",
            remedy="pip install 'cloud-copilot[manager,postgres]'",
            code=ErrorCode.INVALID_REQUEST,
        ) from error
    store = PostgresStore(settings.store.url.get_secret_value())
    return store, store.peers


class Manager:
    """One manager process: store, services, files, doors."""

    def __init__(self, settings: Settings) -> None:
        private_directory(settings.data_dir)
        private_directory(settings.shared_dir)
        self.settings = settings
        self.version = product_version()
        self.store, self._peers = build_store(settings)
        self.signer = Ed25519Signer(
            Ed25519PrivateKey.from_private_bytes(key_file(settings.keys / "receipts.key"))
        )
        self.files = FileService(
            settings.files,
            LinkSigner(key_file(settings.keys / "links.key")),
            floor_bytes=settings.limits.free_space_mib * MIB,
            max_file_bytes=int(settings.limits.max_file_gib * GIB),
        )
        self.adapters = build_adapters(settings)
        clock = SystemClock()
        self.services: Services = build_services(
            self.store,
            clock=clock,
            ids=RandomIds(clock),
            signer=self.signer,
            links=self.files,
            config=service_config(settings),
            adapters=self.adapters,
            peers=self._peers,
        )
        self.metrics = Metrics(self.services, tuple(settings.experiments), self.version)
        self.originals = self._original_agents(clock)
        self.url = ""

    def _original_agents(self, clock: SystemClock) -> "OriginalAgents | None":
        if (options := self.settings.copilot1) is None:
            return None
        from job_manager_adapter.copilot1 import OriginalAgents

        return OriginalAgents(
            options, self.settings, self.services, self.files, clock, self.metrics
        )

    async def run(self, stop: asyncio.Event, ready: Callable[[str], None]) -> None:
        """Serves until `stop`; `ready` is told the URL once requests are answered."""
        async with self.running() as url:
            ready(url)
            await stop.wait()
            log.info("stopping")

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[str]:
        """Open store, running services, a listening server; gives the URL."""
        with _only_one(self.settings.data_dir):
            await self.store.open()
            try:
                if self._peers is not None:
                    await self._join(self._peers)
                await self.services.start()
                await self._first_token()
                async with self._listening() as url, self._background():
                    yield url
            finally:
                await self._close()

    async def _join(self, peers: PeerStore) -> None:
        """Managers of one database sign with the same keys and serve the same files."""
        shared = self.settings.shared_dir
        mark = fresh_file(shared / "shared.id", secrets.token_hex(16).encode()).decode()
        if await peers.agree("shared_dir", mark) != mark:
            raise CopilotError(
                f"the managers of this database share another directory than {shared}",
                remedy="set store.shared_dir to theirs (keys/ and files/ are in it);"
                " see docs/operations.md, several managers",
                code=ErrorCode.CONFLICT,
            )
        where = self.settings.server
        url = where.public_url or f"{where.listen}:{where.port}"
        await peers.join(f"{url} on {socket.gethostname()}, process {os.getpid()}")

    async def _close(self) -> None:
        try:
            try:
                await self.services.close()
            except StoreError as error:
                log.warning("some events are lost: %s", error)
            for adapter in self.adapters.values():
                await adapter.close()
        finally:
            await self.store.close()

    @contextlib.asynccontextmanager
    async def _background(self) -> AsyncIterator[None]:
        components = self._components()  # before the group, which would wrap what is wrong
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(self.services.run(), name="housekeeping"),
                group.create_task(self.metrics.watch_loop(), name="loop lag"),
                group.create_task(self._clean_files(), name="files' clean-up"),
                *(group.create_task(each.run(), name="XMPP") for each in components),
            ]
            if self.originals is not None:
                tasks.append(group.create_task(self.originals.run(), name="original agents"))
            try:
                yield
            finally:
                for task in tasks:
                    task.cancel()

    @contextlib.asynccontextmanager
    async def _listening(self) -> AsyncIterator[str]:
        guard = self._guard()
        server = HttpServer(self._application(guard), guard)
        port = await self._start(server)
        self.url = self._public_url(port)
        self.files.base_url = self.url
        url_file = self.settings.data_dir / "manager.url"
        write_file(url_file, f"{self.url}\n".encode(), mode=0o644)
        try:
            yield self.url
        finally:
            await server.stop()
            url_file.unlink(missing_ok=True)

    async def _start(self, server: HttpServer) -> int:
        where = self.settings.server
        try:
            return await server.start(self._address())
        except ssl.SSLError as error:
            raise CopilotError(
                f"the certificate {where.tls_cert} cannot be used: {error}",
                remedy="tls_cert and tls_key are PEM files that belong together",
                code=ErrorCode.INVALID_REQUEST,
            ) from error
        except OSError as error:
            await server.stop()
            raise CopilotError(
                f"cannot listen on {where.listen}:{where.port}: {error.strerror}",
                remedy="choose another address or port (--listen, --port), or stop what has it",
                code=ErrorCode.CONFLICT,
            ) from error

    def _guard(self) -> ConnectionGuard:
        limits = self.settings.limits
        behind = self.settings.server.behind_proxy
        return ConnectionGuard(
            request_seconds=limits.request_seconds,
            per_address=0 if behind else limits.connections_per_address,
        )

    def _application(self, guard: ConnectionGuard) -> web.Application:
        application = make_application(guard, [self.metrics.middleware()])
        door = PilotDoor(
            pilots=self.services.pilots,
            files=self.files,
            tokens=AccessTokens(
                key_file(self.settings.keys / "access.key"),
                self.settings.policy.access_token_seconds,
            ),
            count_frame=self.metrics.count_frame,
            count_bytes=self.metrics.count_bytes,
            xmpp=self.settings.xmpp.address if self.settings.xmpp else None,
        )
        add_pilot_routes(application, door)
        doors = Doors(
            services=self.services,
            files=self.files,
            experiments=tuple(self.settings.experiments),
            manager_key=self.signer.public_key,
            version=self.version,
            max_body=self.settings.limits.max_body_mib * MIB,
        )
        add_api(application, doors)
        health = Health(
            problems=self.problems,
            metrics=self.metrics.text,
            metrics_type=CONTENT_TYPE,
            behind_proxy=self.settings.server.behind_proxy,
        )
        add_health(application, health, self.services.tokens)
        return application

    def _components(self) -> list[PilotComponent]:
        settings = self.settings.xmpp
        if settings is None:
            return []
        door = XmppDoor(self.services.pilots, self.metrics.count_frame)
        return [build_component(settings, door)]

    def _address(self) -> Address:
        server = self.settings.server
        tls = None
        if server.tls_cert and server.tls_key:
            tls = tls_context(str(server.tls_cert), str(server.tls_key))
        return Address(server.listen, server.port, tls)

    def _public_url(self, port: int) -> str:
        server = self.settings.server
        if server.public_url:
            return server.public_url
        scheme = "https" if server.tls_cert else "http"
        host = f"[{server.listen}]" if ":" in server.listen else server.listen
        return f"{scheme}://{host}:{port}"

    async def problems(self) -> Sequence[str]:
        """Why the manager is not ready; empty if it is."""
        found = []
        try:
            async with asyncio.timeout(_READY_SECONDS):
                await self.store.journal_last()
        except (TimeoutError, StoreError):
            found.append("the store does not answer")
        if self.files.free_bytes() < self.files.floor_bytes:
            found.append("the data directory's disk is nearly full")
        return found

    async def _first_token(self) -> None:
        path = self.settings.data_dir / "operator.token"
        if path.exists():
            return
        view = await self.services.tokens.create(Role.OPERATOR, label="first operator")
        write_file(path, f"{view.token}\n".encode())
        log.info("operator token written to %s", path)

    async def _clean_files(self) -> None:
        retention = self.settings.retention
        while True:
            if not self.services.leads:
                await asyncio.sleep(_LEADER_SECONDS)
                continue
            try:
                freed = await self.files.clean(
                    blob_days=retention.inputs_days,
                    output_days=retention.jobs_days + 7,
                    in_use=self._inputs_in_use,
                )
            except (OSError, StoreError) as error:
                log.warning("the clean-up of files failed: %s", error)
            else:
                if freed:
                    log.info("the clean-up of files freed %d bytes", freed)
            await asyncio.sleep(_CLEAN_SECONDS)

    async def _inputs_in_use(self) -> set[str]:
        """Hashes of the inputs of every job that has not ended."""
        found: set[str] = set()
        for state in (state for state in JobState if not state.final):
            after: int | None = None
            while rows := await self.store.jobs(JobQuery(state=state, after=after, limit=500)):
                after = rows[-1].sequence
                for spec in (await self.store.specs([row.id for row in rows])).values():
                    inputs = JobSpec.model_validate_json(spec).inputs
                    found.update(file.sha256 for file in inputs)
        return found


@contextlib.contextmanager
def _only_one(data_dir: Path) -> Iterator[None]:
    """Two managers on one data directory would lose jobs."""
    descriptor = os.open(data_dir / "manager.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise CopilotError(
                f"another manager runs on {data_dir}",
                remedy="stop it first, or give this one another data_dir",
                code=ErrorCode.CONFLICT,
            ) from error
        yield
    finally:
        os.close(descriptor)
