"""Rows and operations of pilots, hosts, enrolments and drains."""

from dataclasses import dataclass

from copilot_agent.protocol.capabilities import Capabilities
from copilot_agent.protocol.errors import ErrorCode
from copilot_agent.protocol.job import FailureClass
from job_manager_adapter.store.records import OpenLease, Released


@dataclass(frozen=True, slots=True)
class NewPilot:
    id: str
    key: str
    launcher_key: str
    secret_sha256: str
    host: str
    """Taken if the launcher is new."""
    capabilities: Capabilities
    at: float
    max_boots: int


@dataclass(frozen=True, slots=True)
class Enrolled:
    """`refusal` is None if the pilot exists now; then its launcher's earlier ones are retired."""

    refusal: ErrorCode | None
    reason: str = ""
    host: str = ""
    enrolment: str = ""
    superseded: tuple[str, ...] = ()
    released: tuple[Released, ...] = ()


@dataclass(frozen=True, slots=True)
class PilotRow:
    id: str
    host: str
    enrolment: str
    key: str
    launcher_key: str
    capabilities: Capabilities
    enrolled_at: float
    seen_at: float | None = None
    retired: bool = False
    banned: bool = False
    """Its host is."""
    paused: bool = False
    jobs_succeeded: int = 0
    jobs_failed: int = 0


@dataclass(frozen=True, slots=True)
class PilotChange:
    """Fields that are None stay as they are."""

    pilot: str
    capabilities: Capabilities | None = None
    paused: bool | None = None
    seen_at: float | None = None


@dataclass(frozen=True, slots=True)
class Retire:
    """Takes pilots out of service and releases what they hold, uncharged."""

    pilots: tuple[str, ...]
    failure_class: FailureClass
    message: str
    at: float


@dataclass(frozen=True, slots=True)
class DrainRow:
    """A drain that was asked for and not taken back."""

    scope: str
    """A pilot's id, a host's, or `*`: the fleet."""
    at: float
    until: float | None = None
    """When what is held is taken back; None: it may run to its end."""


@dataclass(frozen=True, slots=True)
class HostRow:
    id: str
    launcher_key: str
    enrolment: str
    label: str
    banned: bool
    ban_reason: str
    boots: int
    jobs_succeeded: int
    granted: float
    seen_at: float | None


@dataclass(frozen=True, slots=True)
class EnrolmentRow:
    id: str
    secret_sha256: str
    label: str
    created_at: float
    expires_at: float
    launchers_allowed: int
    revoked: bool = False
    hosts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Holdings:
    """Pilots, those of them that hold something as rows, and the open leases that they hold."""

    pilots: tuple[str, ...] = ()
    rows: tuple[PilotRow, ...] = ()
    leases: tuple[OpenLease, ...] = ()
