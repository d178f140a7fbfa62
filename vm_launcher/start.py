"""Console script of this package."""

from copilot_agent.start import start


def vm_launcher() -> int:
    return start("vm-launcher", "vm_launcher.cli", "launcher")
