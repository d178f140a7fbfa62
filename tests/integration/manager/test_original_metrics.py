"""Reports of components of Co-Pilot 1 stand on /metrics with everything else."""

import aiohttp

from copilot_agent.protocol.copilot1.monitor_commands import ReportEventValue
from job_manager_adapter.app import Manager


async def test_a_report_is_on_metrics(manager: Manager, http: aiohttp.ClientSession) -> None:
    report = ReportEventValue(component="jobmanager.generic.beta", event="queuedJobs", value=17)
    manager.metrics.originals.take(report)
    async with http.get("/metrics") as answer:
        lines = (await answer.text()).splitlines()
    labels = '{component="jobmanager.generic.beta",event="queuedJobs"}'
    assert f"copilot_original_event_value{labels} 17.0" in lines
