"""Console scripts of this package."""

from copilot_agent.start import start


def copilot() -> int:
    return start("copilot", "job_manager_adapter.cli.main", "client")


def copilot_manager() -> int:
    return start("copilot-manager", "job_manager_adapter.cli.manager", "manager")
