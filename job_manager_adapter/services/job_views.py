"""Rows and leases as people see them."""

from collections.abc import Sequence
from typing import Literal

from copilot_agent.protocol.job import JobSpec, JobState, Phase
from job_manager_adapter.core.leases import Lease
from job_manager_adapter.services.times import moment, moment_or_none
from job_manager_adapter.store.records import AttemptRow, JobRow
from job_manager_adapter.views import AttemptView, JobView, OutputView


def brief(row: JobRow, lease: Lease | None) -> JobView:
    progress = lease.progress if lease else None
    return JobView(
        id=row.id,
        batch=row.batch,
        experiment=row.experiment,
        name=row.name,
        state=_job_state(row, lease),
        attempt=row.attempt,
        max_attempts=row.max_attempts,
        attempts_charged=row.charged,
        failure_class=row.failure_class,
        message=row.message,
        phase=phase(lease),
        fraction=progress.fraction if progress else None,
        cpu_seconds=progress.cpu_seconds if progress else None,
        pilot=row.pilot,
        submitted_at=moment(row.submitted_at),
        changed_at=moment(row.changed_at),
        labels=dict(row.labels),
    )


def _job_state(row: JobRow, lease: Lease | None) -> JobState:
    """A start may not be written down yet."""
    started = lease is not None and lease.started and row.state is JobState.LEASED
    return JobState.RUNNING if started else row.state


def phase(lease: Lease | None) -> Phase | None:
    if lease is None:
        return None
    return lease.progress.phase if lease.progress else lease.phase


def full(
    row: JobRow, spec: bytes | None, attempts: Sequence[AttemptRow], lease: Lease | None
) -> JobView:
    outputs = next((item.outputs for item in reversed(attempts) if item.outputs), ())
    return brief(row, lease).model_copy(
        update={
            "spec": JobSpec.model_validate_json(spec) if spec else None,
            "attempts": tuple(_attempt(item, lease) for item in attempts),
            "outputs": tuple(
                OutputView(name=item.name, size=item.size, sha256=item.sha256) for item in outputs
            ),
        }
    )


def _attempt(row: AttemptRow, lease: Lease | None) -> AttemptView:
    live = lease if lease and lease.attempt == row.attempt else None
    progress = live.progress if live else None
    return AttemptView(
        attempt=row.attempt,
        pilot=row.pilot,
        host=row.host or None,
        state=_state(row),
        outcome=row.outcome,
        failure_class=row.failure_class,
        exit_code=row.exit_code,
        signal=row.signal,
        message=row.message,
        charged=row.charged,
        leased_at=moment(row.leased_at),
        started_at=moment_or_none(row.started_at),
        ended_at=moment_or_none(row.ended_at),
        usage=row.usage,
        credit_granted=row.granted,
        late=row.late,
        phase=phase(live),
        fraction=progress.fraction if progress else None,
    )


def _state(row: AttemptRow) -> Literal["leased", "running", "ended"]:
    if row.ended_at is not None:
        return "ended"
    return "leased" if row.started_at is None else "running"


def why(row: JobRow) -> str:
    """One line about a job that does not wait."""
    match row.state:
        case JobState.LEASED:
            return f"offered to pilot {row.pilot}, not yet started"
        case JobState.RUNNING:
            return f"running on pilot {row.pilot}"
        case JobState.SUCCEEDED:
            return f"succeeded at attempt {row.attempt}"
        case JobState.FAILED:
            used = f"{row.charged} of {row.max_attempts} attempts used"
            return f"failed for good ({used}): {row.failure_class}: {row.message}"
        case _:
            return f"{row.state}: {row.message}"
