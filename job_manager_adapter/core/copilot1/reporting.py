"""What becomes of an original agent's jobDone: the report that a modern pilot would have made."""

from collections.abc import Sequence
from dataclasses import dataclass

from copilot_agent.protocol.copilot1.job_commands import JobDone
from copilot_agent.protocol.copilot1.job_data import parse_job_data
from copilot_agent.protocol.copilot1.wait_status import Ending, ending_of
from copilot_agent.protocol.frames import Report
from copilot_agent.protocol.job import FailureClass, JobSpec, Outcome, Output, Usage
from job_manager_adapter.core.leases import Key


@dataclass(frozen=True)
class TakenIn:
    """What was found in the agent's archive."""

    outputs: Sequence[Output] = ()
    problem: str = ""
    """Why the archive, or an output, could not be taken."""
    failure_class: FailureClass = FailureClass.STAGE_OUT
    """Of the problem."""


def report_of(key: Key, spec: JobSpec, done: JobDone, taken: TakenIn, wall: float) -> Report:
    """`wall` in seconds, since the job was handed out."""
    ending = done.ending
    failure = _failure(spec, done, taken)
    failed = Outcome.FAILED if failure else Outcome.SUCCEEDED
    return Report(
        job=key[0],
        attempt=key[1],
        outcome=failed,
        exit_code=ending.exit_code,
        signal=ending.signal,
        failure_class=failure[0] if failure else None,
        message=failure[1][:2000] if failure else "",
        usage=Usage(wall_seconds=max(wall, 0.0), cpu_seconds=cpu_seconds(done, wall)),
        outputs=tuple(taken.outputs),
    )


def _failure(spec: JobSpec, done: JobDone, taken: TakenIn) -> tuple[FailureClass, str] | None:
    if taken.problem and taken.failure_class is FailureClass.STAGE_IN:
        return taken.failure_class, taken.problem
    if not done.ending.succeeded:
        return FailureClass.PAYLOAD, f"the payload {_ended(done.ending)}"
    if done.validate_exit_status:
        validation = ending_of(done.validate_exit_status)
        return FailureClass.PAYLOAD, f"the validation script {_ended(validation)}"
    if taken.problem:
        return taken.failure_class, taken.problem
    wanted = {file.name for file in spec.outputs if not file.optional}
    if missing := sorted(wanted - {output.name for output in taken.outputs}):
        return FailureClass.PAYLOAD, f"declared outputs are missing: {', '.join(missing)}"
    return None


def _ended(ending: Ending) -> str:
    if ending.signal:
        return f"was ended by signal {ending.signal}"
    return f"ended with exit code {ending.exit_code}"


def cpu_seconds(done: JobDone, wall: float) -> float:
    """Newer originals say it in `wallTime`, whatever its name; it is a claim, so it is bounded."""
    value = parse_job_data(done.job_data or "").values.get("wallTime", "")
    try:
        claimed = float(value) if isinstance(value, str) else 0.0
    except ValueError:
        return 0.0
    return min(claimed, max(wall, 0.0)) if claimed > 0 else 0.0
