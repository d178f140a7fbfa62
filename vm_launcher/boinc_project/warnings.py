"""What an operator should think about before volunteers get an application version."""

from collections.abc import Iterator
from ipaddress import ip_address
from urllib.parse import urlsplit

from vm_launcher.boinc.task_settings import TaskSettings
from vm_launcher.egress import Entry


def warnings(settings: TaskSettings) -> Iterator[str]:
    """One line each. None of it is wrong on a test's own computer."""
    host = Entry.parse(settings.manager).host
    if _is_loopback(host):
        yield f"the manager {settings.manager} is on loopback: no volunteer's PC can reach it"
    if urlsplit(settings.manager).scheme == "http":
        yield (
            f"the manager {settings.manager} is reached by plain http: who is on the way can read"
            " and change what pilots and manager say; https does not let them"
        )


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
