"""Reading the launcher's status file."""

import json
from pathlib import Path

from pydantic import ValidationError

from deploy.demo.summary import VmFacts
from job_manager_adapter.cli.output import printable, size
from vm_launcher.state import Status


def read_status(path: Path) -> Status:
    """The newest status; an empty one before the launcher has written it."""
    try:
        return Status.model_validate(json.loads(path.read_text()))
    except (FileNotFoundError, json.JSONDecodeError, ValidationError):
        return Status()


def facts(status: Status) -> VmFacts:
    return VmFacts(
        boot_seconds=status.vm_boot_seconds or 0.0,
        accelerator=status.accelerator,
        kernel=status.kernel,
        image_sha256=status.image_sha256,
    )


def words(status: Status) -> tuple[str, str]:
    """One line of state, and one of details."""
    state = status.state
    if status.guest_state:
        state += f", pilot {status.guest_state}"
    details = [status.accelerator, f"{status.cpus} CPUs, {status.memory_mib} MiB"]
    if status.vm_boot_seconds:
        details.append(f"first word after {status.vm_boot_seconds:.1f} s")
    details.append(f"{status.cpu_seconds:.0f} CPU s used")
    details.append(f"{size(status.memory_bytes)} of this computer's memory")
    return printable(state), printable(" · ".join(filter(None, details)))
