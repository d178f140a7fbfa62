"""init_data.xml: what the client tells a task at its start, and again when preferences change.

The volunteer's account key (`authenticator`) stands in the same file; it is not read from it.
"""

import html
import os
from pathlib import Path
from typing import Annotated, Any, NoReturn

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from copilot_agent.protocol.errors import FieldError
from vm_launcher.boinc.errors import InitDataError
from vm_launcher.boinc.tags import MOST_NUMBER, find_text, without

FILE_NAME = "init_data.xml"
MOST_BYTES = 4 << 20

DEFAULT_CHECKPOINT_PERIOD = 300.0
"""Seconds, where the client says 0."""


def _period(value: Any) -> Any:
    return DEFAULT_CHECKPOINT_PERIOD if _as_number(value) == 0 else value


def _percent(value: Any) -> Any:
    """0 is "no limit" in BOINC."""
    number = _as_number(value)
    return 100.0 if number is not None and (number == 0 or number > 100) else value


def _flag(value: Any) -> Any:
    """An empty element is a flag that is set."""
    return True if value == "" else value


def _as_number(value: Any) -> float | None:
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


Amount = Annotated[float, Field(ge=0, le=MOST_NUMBER, allow_inf_nan=False)]
Id = Annotated[int, Field(ge=-1, le=2**31)]
Text = Annotated[str, Field(max_length=256)]
Directory = Annotated[str, Field(max_length=4096, pattern=r"^[^\x00-\x1f]*$")]
Fraction = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Percent = Annotated[float, Field(ge=0, le=100, allow_inf_nan=False), BeforeValidator(_percent)]
Flag = Annotated[bool, BeforeValidator(_flag)]


class InitData(BaseModel):
    """The fields that we use, under the client's own names where the unit is the client's.

    Times in seconds, sizes in bytes, names as they are (labels only: they are a claim).
    """

    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)

    project_dir: Directory = ""
    boinc_dir: Directory = ""
    app_name: Text = ""
    wu_name: Text = ""
    result_name: Text = ""
    userid: Id = 0
    hostid: Id = 0
    teamid: Id = 0
    user_name: Text = ""
    team_name: Text = ""

    shm_key: Annotated[int, Field(ge=-(2**31), le=2**31)] | None = None
    comm_obj_name: Text = ""
    """Windows: the name of the shared memory."""
    slot: Annotated[int, Field(ge=0, le=10**6)] = 0
    client_pid: Annotated[int, Field(ge=0, le=2**31 - 1)] = 0
    """0: the client does not say, so only its heartbeat tells whether it lives."""

    wu_cpu_time: Amount = 0.0
    """CPU seconds at the last checkpoint, over all earlier episodes."""
    starting_elapsed_time: Amount = 0.0
    checkpoint_period: Annotated[Amount, BeforeValidator(_period)] = DEFAULT_CHECKPOINT_PERIOD
    fraction_done_start: Fraction = 0.0
    fraction_done_end: Fraction = 1.0

    ncpus: Annotated[float, Field(ge=0, le=4096, allow_inf_nan=False)] = 1.0
    rsc_memory_bound: Amount = 0.0
    rsc_disk_bound: Amount = 0.0
    computation_deadline: Amount = 0.0
    """Unix time."""

    p_ncpus: Annotated[int, Field(ge=0, le=2**20)] = 0
    """Processors of the host."""
    m_nbytes: Amount = 0.0
    """Memory of the host."""

    cpu_usage_limit: Percent = 100.0
    """Of the time, percent; so for the next three, of processors and memory."""
    max_ncpus_pct: Percent = 100.0
    ram_max_used_busy_pct: Percent = 100.0
    """While the volunteer uses the computer."""
    ram_max_used_idle_pct: Percent = 100.0
    max_bytes_sec_up: Amount = 0.0
    """0: no limit. So for the next three."""
    max_bytes_sec_down: Amount = 0.0
    daily_xfer_limit_mb: Amount = 0.0
    daily_xfer_period_days: Annotated[int, Field(ge=0, le=36500)] = 0
    disk_interval: Amount = 0.0
    """Least seconds between writes to disk."""
    leave_apps_in_memory: Flag = False

    @property
    def ram_max_used_busy_frac(self) -> float:
        return self.ram_max_used_busy_pct / 100

    @property
    def ram_max_used_idle_frac(self) -> float:
        return self.ram_max_used_idle_pct / 100


_LABELS = ("user_name", "team_name")
_HOST = ("p_ncpus", "m_nbytes")
_PREFERENCES = (
    "cpu_usage_limit",
    "max_ncpus_pct",
    "ram_max_used_busy_pct",
    "ram_max_used_idle_pct",
    "max_bytes_sec_up",
    "max_bytes_sec_down",
    "daily_xfer_limit_mb",
    "daily_xfer_period_days",
    "disk_interval",
    "leave_apps_in_memory",
)
_TASK = tuple(set(InitData.model_fields) - {*_LABELS, *_HOST, *_PREFERENCES})


def read_init_data(path: Path) -> InitData:
    """Raises `InitDataError`, which names the field."""
    return parse_init_data(_read(path))


def parse_init_data(text: str) -> InitData:
    if "<app_init_data>" not in text or "</app_init_data>" not in text:
        _refuse("it is not whole: <app_init_data> is not there or does not end")
    text = without(text, "project_preferences")  # the project's own words, as they came
    host = find_text(text, "host_info") or ""
    preferences = find_text(text, "global_preferences") or ""
    values = _values(text, _TASK) | _values(host, _HOST) | _values(preferences, _PREFERENCES)
    labels = {name: html.unescape(label)[:256] for name, label in _values(text, _LABELS).items()}
    try:
        return InitData.model_validate(values | labels)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        field = ".".join(map(str, first["loc"]))
        _refuse(f"<{field}>: {first['msg']}", FieldError(field=field, message=first["msg"]))


def _values(text: str, names: tuple[str, ...]) -> dict[str, str]:
    found = ((name, find_text(text, name)) for name in names)
    return {name: value.strip() for name, value in found if value is not None}


def _read(path: Path) -> str:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            data = file.read(MOST_BYTES + 1)
    except OSError as error:
        _refuse(f"it cannot be read: {error.strerror}")
    if len(data) > MOST_BYTES:
        _refuse(f"it is larger than {MOST_BYTES >> 20} MiB")
    return data.decode(errors="replace")


def _refuse(reason: str, *errors: FieldError) -> NoReturn:
    raise InitDataError(
        f"{FILE_NAME}: {reason}",
        remedy="restart the BOINC client; if that does not help, report it to the project",
        errors=errors,
    ) from None
