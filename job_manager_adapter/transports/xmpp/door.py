"""What the component needs of the manager."""

from collections.abc import Callable
from dataclasses import dataclass, field

from job_manager_adapter.services.pilots import Pilots
from job_manager_adapter.transports.pace import Paces


@dataclass(frozen=True)
class XmppDoor:
    pilots: Pilots
    count_frame: Callable[[str], None]
    """Told the carrier of every frame that comes in."""
    attaches: Paces = field(default_factory=lambda: Paces(rate=1, burst=60))
    """Each costs reads of the database and an entry in the journal."""
