"""What client and application write into the channels between them, as text.

Either side searches the other's text for the tags that it knows.
"""

from dataclasses import dataclass
from enum import StrEnum

from vm_launcher.boinc.tags import MOST_NUMBER, find_number, has_flag

NEW_TRICKLE_UP = "<have_new_trickle_up/>\n"

MOST_URL_LENGTH = 255
"""As long as the official library keeps one."""

_URL_CHARACTERS = frozenset(
    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~:/?=%"
)


class Order(StrEnum):
    """What the client tells a task to do. In the order in which the official library looks."""

    SUSPEND = "suspend"
    RESUME = "resume"
    QUIT = "quit"
    ABORT = "abort"
    REREAD = "reread_app_info"


def parse_orders(text: str) -> tuple[Order, ...]:
    return tuple(order for order in Order if has_flag(text, order))


@dataclass(frozen=True)
class Heartbeat:
    """Once a second while the client lives and is not held up."""

    memory_bytes: float
    """Resident memory of the task's processes as the client sees it; 0 where it does not say."""
    memory_limit_bytes: float | None
    network_suspended: bool


def parse_heartbeat(text: str) -> Heartbeat:
    limit = find_number(text, "max_wss")
    return Heartbeat(
        memory_bytes=max(find_number(text, "wss") or 0.0, 0.0),
        memory_limit_bytes=limit if limit is not None and limit > 0 else None,
        network_suspended=_network_suspended(text),
    )


def is_heartbeat(text: str) -> bool:
    return has_flag(text, "heartbeat")


def has_trickle_down(text: str) -> bool:
    return has_flag(text, "have_trickle_down")


@dataclass(frozen=True)
class AppStatus:
    """What the volunteer sees of the task, and what the client accounts.

    CPU seconds are totals of all episodes: `wu_cpu_time` of init_data.xml is in them.
    """

    cpu_seconds: float
    checkpoint_cpu_seconds: float
    """CPU seconds at the last checkpoint; the client keeps elapsed time when it changes."""
    fraction_done: float
    """0 to 1; the client ignores 0."""
    other_pid: int | None = None
    """A process that is not a descendant of ours: the client counts it, and kills it with us."""
    want_network: bool = False


def format_status(status: AppStatus) -> str:
    """Both CPU tags always: the client takes one that is missing for 0."""
    lines = [
        f"<current_cpu_time>{_number(status.cpu_seconds)}</current_cpu_time>",
        f"<checkpoint_cpu_time>{_number(status.checkpoint_cpu_seconds)}</checkpoint_cpu_time>",
        f"<fraction_done>{_number(min(status.fraction_done, 1.0))}</fraction_done>",
    ]
    if status.other_pid is not None and status.other_pid > 0:
        lines.append(f"<other_pid>{status.other_pid}</other_pid>")
    if status.want_network:
        lines.append("<want_network>1</want_network>")
    return "\n".join(lines) + "\n"


def format_page(url: str) -> str:
    """Where the volunteer's BOINC manager finds the task's page; raises `ValueError`.

    The client hands the URL on as it is, so it must have nothing that XML would need to escape.
    """
    if len(url) > MOST_URL_LENGTH or not _URL_CHARACTERS.issuperset(url):
        raise ValueError(f"no URL that BOINC can hand on: {url!r}")
    return f"<web_graphics_url>{url}</web_graphics_url>"


def _network_suspended(text: str) -> bool:
    """The client says the first; the official library listens for the second only."""
    return has_flag(text, "network_suspended") or has_flag(text, "suspend_network")


def _number(value: float) -> str:
    return f"{value if 0 <= value <= MOST_NUMBER else 0.0:e}"
