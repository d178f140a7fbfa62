"""The demo's summary: what a visitor wants to know, and what a test can check."""

from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict

from copilot_agent.protocol.job import JobState
from copilot_agent.protocol.receipt import CREDIT_PER_CPU_SECOND, Receipt
from deploy.demo.physics import Masses, Spectrum, largest_bin_difference
from job_manager_adapter.client import verify_receipt
from job_manager_adapter.views import JobView


class VmFacts(BaseModel):
    """What the launcher says about its VM."""

    boot_seconds: float
    accelerator: str
    kernel: str
    image_sha256: str


class Summary(BaseModel):
    """`demo-out/summary.json`."""

    model_config = ConfigDict(extra="forbid")

    jobs: int
    succeeded: int
    attempts: int
    events: int
    mean_mass_gev: float
    mean_mass_error_gev: float
    cpu_seconds: float
    carrier: str
    """How pilot and manager talked: websocket, poll or xmpp."""
    credit_granted: float
    """Equal to the sum recomputed from the verified receipts."""
    wall_seconds: float
    vm_boot_seconds: float
    accelerator: str
    kernel: str
    image_sha256: str
    native_identical: bool
    """The same seed natively gives the same bits, event record included."""
    native_largest_bin_difference: int


class BoincFacts(BaseModel):
    """What BOINC's client and project say of the task that ran the VM."""

    boinc_exit_status: int
    boinc_cpu_seconds: float
    """All CPU of the VM, as the client reported it."""
    boinc_elapsed_seconds: float
    boinc_credit_granted: float
    """By the project, after it has checked the uploaded receipts."""
    boinc_start_to_vm_seconds: float | None
    """From the client's start of the launcher to the launcher's of QEMU."""


class BoincSummary(BoincFacts, Summary):
    """`demo-out/summary.json` of `make demo-boinc`."""


def credit_of(receipts: Sequence[Receipt], manager_key: str) -> float:
    """Credit summed from receipts, each checked: signature, one per attempt, its arithmetic.

    Raises ReceiptError, ValueError.
    """
    seen: set[tuple[str, int]] = set()
    total = 0.0
    for receipt in receipts:
        verify_receipt(receipt, manager_key)
        statement = receipt.statement
        if (statement.job, statement.attempt) in seen:
            raise ValueError(f"two receipts for {statement.job} attempt {statement.attempt}")
        seen.add((statement.job, statement.attempt))
        if abs(statement.granted - statement.cpu_seconds * CREDIT_PER_CPU_SECOND) > 1e-9:
            raise ValueError(f"receipt {statement.id}: credit does not follow from its CPU time")
        total += statement.granted
    return total


def summarise(
    jobs: Sequence[JobView],
    spectrum: Spectrum,
    credit: float,
    carrier: str,
    vm: VmFacts,
    wall_seconds: float,
    native: tuple[Masses, Masses],
) -> Summary:
    """`native` holds the guest's and the native result of the same seed."""
    attempts = [attempt for job in jobs for attempt in job.attempts]
    return Summary(
        jobs=len(jobs),
        succeeded=sum(job.state is JobState.SUCCEEDED for job in jobs),
        attempts=len(attempts),
        events=len(spectrum.masses),
        mean_mass_gev=round(spectrum.mean, 4),
        mean_mass_error_gev=round(spectrum.mean_error, 4),
        cpu_seconds=round(sum(attempt.usage.cpu_seconds for attempt in attempts), 3),
        carrier=carrier,
        credit_granted=credit,
        wall_seconds=round(wall_seconds, 2),
        vm_boot_seconds=round(vm.boot_seconds, 2),
        accelerator=vm.accelerator,
        kernel=vm.kernel,
        image_sha256=vm.image_sha256,
        native_identical=native[0] == native[1],
        native_largest_bin_difference=largest_bin_difference(*native),
    )
