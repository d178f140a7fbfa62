"""What runs in the demo besides the jobs: started in order, stopped in order."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from deploy.demo.alone import launcher_host
from deploy.demo.boinc import boinc_host
from deploy.demo.display import Display
from deploy.demo.host import Ground, Host
from deploy.demo.options import Options
from deploy.demo.processes import TOOLS, Process, appear, program
from deploy.demo.xmpp import Door, prosody
from job_manager_adapter.client import Client

EXPERIMENT = "demo"
CONFIG = f"""\
[server]
listen = "127.0.0.1"
port = 0

[policy]
heartbeat_seconds = 2
lease_seconds = 60

[experiments.{EXPERIMENT}]
adapter = "queue"
"""


@dataclass(frozen=True)
class Stage:
    options: Options
    display: Display
    client: Client
    manager: Process
    host: Host


@asynccontextmanager
async def stage(options: Options, work: Path, display: Display) -> AsyncIterator[Stage]:
    """Manager and launcher, with BOINC or an XMPP server if wanted, for as long as it lasts."""
    async with AsyncExitStack() as stack:
        xmpp = None
        if options.transport == "xmpp":
            display.step("starting the XMPP server")
            xmpp = await stack.enter_async_context(prosody(work))
        yield await stack.enter_async_context(_programs(options, work, display, xmpp))
        display.step("stopping")


@asynccontextmanager
async def _programs(
    options: Options, work: Path, display: Display, xmpp: Door | None
) -> AsyncIterator[Stage]:
    data, config = work / "manager", work / "manager.toml"
    config.write_text(CONFIG + (xmpp.settings if xmpp else ""))
    tool = str(TOOLS / "copilot-manager")
    manager = (tool, "--config", str(config), "--data-dir", str(data))
    display.step("starting the manager")
    log = options.out / "logs" / "manager.log"
    async with program("the manager", (*manager, "serve"), log) as serving:
        url = await appear(data / "manager.url", serving)
        token = await appear(data / "operator.token", serving)
        async with Client(url, token) as client:
            launcher_options = xmpp.launcher_options if xmpp else ()
            ground = Ground(options, work, display, manager, url, client, launcher_options)
            start = boinc_host if options.boinc else launcher_host
            async with start(ground) as host:
                yield Stage(options, display, client, serving, host)
