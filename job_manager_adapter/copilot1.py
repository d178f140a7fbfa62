"""The manager's part in Co-Pilot 1 put together, for `app.py`."""

import asyncio
import logging
import ssl
import time
import uuid
from pathlib import Path

from copilot_agent.protocol.copilot1.envelope import Envelope
from copilot_agent.protocol.copilot1.errors import StanzaError
from copilot_agent.protocol.copilot1.job_commands import Command
from copilot_agent.protocol.errors import CopilotError, ErrorCode
from copilot_agent.xmpp.account import Account
from copilot_agent.xmpp.client import ClientStream, Login
from copilot_agent.xmpp.heartbeat import Heartbeats
from job_manager_adapter.copilot1_settings import Copilot1
from job_manager_adapter.core.copilot1.instance import Instance, Manners
from job_manager_adapter.core.copilot1.names import Names
from job_manager_adapter.files.durable import key_file
from job_manager_adapter.metrics import Metrics
from job_manager_adapter.services.build import Services
from job_manager_adapter.services.context import Clock
from job_manager_adapter.services.files import FileService
from job_manager_adapter.settings import Settings
from job_manager_adapter.transports.copilot1.agents import Agents
from job_manager_adapter.transports.copilot1.chirp import ChirpRoot
from job_manager_adapter.transports.copilot1.desk import Desk, Terms
from job_manager_adapter.transports.copilot1.door import Copilot1Door
from job_manager_adapter.transports.copilot1.intake import Intake, scratch_of
from job_manager_adapter.transports.copilot1.monitor import Monitor
from job_manager_adapter.transports.copilot1.monitor_reports import MonitorReports, component_of

log = logging.getLogger(__name__)


class OriginalAgents:
    """The account on which original agents ask this manager for jobs."""

    def __init__(
        self,
        options: Copilot1,
        settings: Settings,
        services: Services,
        files: FileService,
        clock: Clock,
        metrics: Metrics,
    ) -> None:
        """Raises CopilotError for an unreadable password or certificate."""
        names = Names(key_file(settings.keys / "copilot1.key"))
        desk = _desk(options, settings, services, files, clock, names)
        self.door = Copilot1Door(
            desk,
            Instance(_manners(options), names),
            lambda: str(uuid.uuid4()),
            count_frame=metrics.count_frame,
            resume_seconds=min(settings.policy.lease_seconds / 4, 10.0),
            others=self._told,
            empty=self._empty,
        )
        self._options = options
        self._services = services
        self._metrics = metrics
        self._login = _login(options)
        self._heartbeats = Heartbeats(lambda: str(uuid.uuid4()))
        self._monitor: Monitor | None = None

    async def run(self) -> None:
        """Until cancelled."""
        options = self._options
        room = f"{options.room}/{options.resource}" if options.room else ""
        answering = self._heartbeats.before(self.door.heard, self._send, time.monotonic)

        async def heard(envelope: Envelope) -> None:
            self.door.note_presence(envelope)  # also of what Heartbeat keeps to itself
            await answering(envelope)

        self.account = Account(ClientStream(self._login), heard, room=room)
        self.door.speak_through(self.account)
        async with asyncio.TaskGroup() as group:
            if options.monitor is not None:
                self._monitor = self._monitoring(options.monitor)
                group.create_task(self._monitor.run())
            group.create_task(self.door.run())
            group.create_task(self.account.run())
            await self.account.wait_online()
            log.info("copilot1: online as %s/%s", self._login.jid, self._login.resource)

    async def _send(self, envelope: Envelope) -> None:
        """What cannot be said is no reason to fall silent altogether. Raises XmppError."""
        try:
            await self.account.send(envelope)
        except StanzaError as error:
            log.warning("copilot1: nothing is said to %s: %s", envelope.recipient, error)

    def _monitoring(self, address: str) -> Monitor:
        services, options = self._services, self._options
        reports = MonitorReports(component_of(options.resource), details=options.monitor_details)
        return Monitor(
            address,
            reports,
            services.events,
            self._send,
            queued=lambda: sum(services.stats().jobs_waiting.values()),
            leads=lambda: services.leads,
        )

    async def _told(self, envelope: Envelope, command: Command) -> None:
        if envelope.type != "groupchat":
            self._metrics.originals.take(command)

    async def _empty(self) -> None:
        if self._monitor is not None:
            await self._monitor.happened("error.emptyQueue")


def _desk(
    options: Copilot1,
    settings: Settings,
    services: Services,
    files: FileService,
    clock: Clock,
    names: Names,
) -> Desk:
    chirp = ChirpRoot(options.chirp_root, options.chirp_subject)
    chirp.prepare()
    folder = settings.shared_dir / "copilot1"
    return Desk(
        terms=_terms(options, settings),
        pilots=services.pilots,
        agents=Agents(folder / "agents", names, services.pilots, services.enrolments),
        names=names,
        files=files,
        chirp=chirp,
        intake=Intake(files, chirp, scratch_of(settings.data_dir)),
        now=clock.time,
    )


def _terms(options: Copilot1, settings: Settings) -> Terms:
    return Terms(
        experiments=frozenset(options.experiments),
        chirp_address=options.chirp_address,
        heartbeat=min(settings.policy.heartbeat_seconds, settings.policy.lease_seconds / 3),
        cores=options.cores,
        memory_mib=options.memory_mib,
        disk_mib=options.disk_mib,
        offer=options.offer_seconds,
        job=options.job_seconds,
        gone=options.gone_seconds,
        restart=options.restart_seconds,
    )


def _manners(options: Copilot1) -> Manners:
    return Manners(
        domain=options.domain,
        chirp_address=options.chirp_address,
        require_file=options.require_file,
        storage_manager=options.storage_manager,
    )


def _login(options: Copilot1) -> Login:
    return Login(
        options.jid,
        _password(options.password_file),
        options.resource,
        options.host,
        options.port,
        None if options.insecure else _tls(options.ca_file),
    )


def _password(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise _wrong(
            f"copilot1.password_file: {path} cannot be read: {error}",
            "write the account's password into it, readable for the manager's user only",
        ) from error


def _tls(authority: Path | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=str(authority) if authority else None)
    except (OSError, ssl.SSLError) as error:
        raise _wrong(
            f"copilot1.ca_file: {authority} cannot be used: {error}",
            "give the PEM file of the authority that signed the XMPP server's certificate",
        ) from error


def _wrong(message: str, remedy: str) -> CopilotError:
    return CopilotError(message, remedy=remedy, code=ErrorCode.INVALID_REQUEST)
