"""The console scripts of all three packages: what is not installed is one line, no traceback.

Each extra installs all of them, and the libraries of its own only.
"""

import sys
from importlib import import_module

_OURS = frozenset({"copilot_agent", "job_manager_adapter", "vm_launcher"})
USAGE_ERROR = 2


def start(program: str, module: str, extra: str) -> int:
    """`main` of the module; where one of its libraries is not there, the extra that brings it."""
    try:
        code: int = import_module(module).main()
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing in _OURS:
            raise
        sys.stderr.write(
            f"{program}: there is no Python package {missing} for {sys.executable};"
            f" install the extra {extra}: cloud-copilot[{extra}]\n"
        )
        return USAGE_ERROR
    return code


def copilot_agent() -> int:
    return start("copilot-agent", "copilot_agent.cli", "agent")
