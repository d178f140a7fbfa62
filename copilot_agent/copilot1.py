"""An agent that works for original Co-Pilot managers, outside a virtual machine."""

import asyncio
import secrets
import time
import uuid
from dataclasses import dataclass, field

from copilot_agent.assembly import Ground
from copilot_agent.core.copilot1.words import Timers
from copilot_agent.core.pilot import PilotCore
from copilot_agent.runtime import Runtime
from copilot_agent.settings import Settings
from copilot_agent.spool import Spool
from copilot_agent.standalone import OwnHost, alone
from copilot_agent.transports.base import FileMoveError, FileMover
from copilot_agent.transports.connections import tls_context
from copilot_agent.transports.copilot1.carrier import Carrier, Employer
from copilot_agent.transports.copilot1.jobs import Terms
from copilot_agent.transports.copilot1.staging import ChirpStageIn, ChirpStageOut
from copilot_agent.xmpp.client import ClientStream, Login
from copilot_agent.xmpp.heartbeat import Heartbeats

MECHANISMS = frozenset({"PLAIN", "SCRAM-SHA-1", "SCRAM-SHA-256"})
OLD_MECHANISMS = MECHANISMS | {"DIGEST-MD5"}


@dataclass(frozen=True)
class Engagement:
    """An account of Co-Pilot 1, and the managers to work for."""

    jid: str
    password: str = field(repr=False)
    server: tuple[str, int]
    managers: str
    resource: str = ""
    """Empty: a random one, as answers to an earlier agent must not be taken for ours."""
    insecure: bool = False
    """Without TLS where the server has none, and without a look at its certificate."""
    room: str = ""
    run_seconds: int = 86_400
    network: bool = False
    packages_command: str = ""
    timers: Timers = field(default_factory=Timers)


class NoMover:
    """For the part of the agent that moves files by URL: Co-Pilot 1 has none."""

    async def download(self, *_: object, **__: object) -> str:
        raise FileMoveError("original managers know no URLs", retryable=False)

    async def upload(self, *_: object, **__: object) -> None:
        raise FileMoveError("original managers know no URLs", retryable=False)


async def run(settings: Settings, engagement: Engagement, ground: Ground) -> int:
    """The exit code. Raises InUseError, ValueError and OSError."""
    with alone(settings.state, ground):
        stream = ClientStream(_login(settings, engagement))
        heartbeats = Heartbeats(lambda: str(uuid.uuid4()))
        carrier = Carrier(
            stream,
            _employer(settings, engagement, ground),
            answer=lambda letter: heartbeats.replies(letter, time.monotonic()),
        )
        async with asyncio.TaskGroup() as group:
            serving = group.create_task(carrier.run())
            code = await _runtime(settings, ground, carrier).run()
            serving.cancel()
        return code


def _login(settings: Settings, engagement: Engagement) -> Login:
    host, port = engagement.server
    return Login(
        jid=engagement.jid,
        password=engagement.password,
        resource=engagement.resource or secrets.token_hex(16),
        host=host,
        port=port,
        tls=None if engagement.insecure else tls_context(settings.ca_certificates),
        mechanisms=OLD_MECHANISMS if engagement.insecure else MECHANISMS,
    )


def _employer(settings: Settings, engagement: Engagement, ground: Ground) -> Employer:
    return Employer(
        managers=engagement.managers,
        state=settings.state / "copilot1",
        scratch=settings.scratch,
        terms=_terms(engagement, ground),
        timers=engagement.timers,
        room=engagement.room,
    )


def _terms(engagement: Engagement, ground: Ground) -> Terms:
    return Terms(
        ground.capabilities,
        run_seconds=engagement.run_seconds,
        network=engagement.network,
        packages_command=engagement.packages_command,
    )


def _runtime(settings: Settings, ground: Ground, carrier: Carrier) -> Runtime:
    spool = Spool(settings.state)

    def staging(_: FileMover) -> tuple[ChirpStageIn, ChirpStageOut]:
        work = ground.sandbox.work
        return ChirpStageIn(work, carrier, carrier.terms), ChirpStageOut(carrier.outgoing, carrier)

    return Runtime(
        PilotCore(ground.capabilities, window=0, launcher=False),
        carrier,
        carrier,
        spool,
        ground.sandbox,
        NoMover(),
        staging,
        lambda runtime: OwnHost(runtime, spool),
    )
