"""Puts the parts of an agent together; used by both ways to run one."""

from collections.abc import Callable
from dataclasses import dataclass

import aiohttp

from copilot_agent.core.pilot import PilotCore
from copilot_agent.identity import Enroller, Vouch
from copilot_agent.payload.runner import Sandbox
from copilot_agent.payload.staging import StageIn, StageOut
from copilot_agent.payload.starter import Starter
from copilot_agent.probe import probe
from copilot_agent.protocol.capabilities import Capabilities
from copilot_agent.runtime import Host, Runtime
from copilot_agent.settings import Settings
from copilot_agent.spool import Spool
from copilot_agent.transports.base import FileMover
from copilot_agent.transports.carriers import carriers
from copilot_agent.transports.enrolment import EnrolmentClient
from copilot_agent.transports.files import HttpFileMover
from copilot_agent.workshop import ProxyMaker


@dataclass(frozen=True)
class Ground:
    """What is there before any connection: payloads' confinement and what can be offered."""

    sandbox: Sandbox
    capabilities: Capabilities


def prepare(settings: Settings, starter: Starter) -> Ground:
    """Raises OSError and ValueError."""
    settings.state.mkdir(parents=True, exist_ok=True, mode=0o700)
    user = settings.payload_user
    sandbox = Sandbox(
        settings.scratch,
        uid=user.uid if user else None,
        gid=user.gid if user else None,
        starter=starter,
    )
    return Ground(sandbox, probe(settings.scratch, sandbox.probe(), settings.given))


def build(
    settings: Settings,
    ground: Ground,
    session: aiohttp.ClientSession,
    vouch: Vouch,
    host: Callable[[Runtime], Host],
    *,
    launcher: bool,
    proxy: ProxyMaker | None = None,
) -> Runtime:
    enroller = Enroller(
        EnrolmentClient(session, settings.manager), vouch, ground.capabilities, settings.state
    )

    def staging(mover: FileMover) -> tuple[StageIn, StageOut]:
        sandbox, user = ground.sandbox, settings.payload_user
        uid, gid = (user.uid, user.gid) if user else (None, None)
        return StageIn(sandbox.cache, sandbox.work, mover, uid=uid, gid=gid), StageOut(mover)

    return Runtime(
        PilotCore(ground.capabilities, settings.window, launcher=launcher),
        carriers(settings, session, enroller),
        enroller,
        Spool(settings.state),
        ground.sandbox,
        HttpFileMover(session),
        staging,
        host,
        proxy,
    )
