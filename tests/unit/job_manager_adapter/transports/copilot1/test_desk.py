"""What an original agent is taken for, by its own description."""

import pytest

from copilot_agent.protocol.copilot1.machine import parse_machine
from job_manager_adapter.transports.copilot1.desk import Terms

TERMS = Terms(frozenset({"demo"}), "chirp.test:9094", heartbeat=1)


def test_what_it_says_counts() -> None:
    text = '[\nMemory=24105;\nLocalDiskSpace=76446344;\nPlatform="Linux-x86_64";\n]\n'
    found = TERMS.capabilities(parse_machine(text))
    assert (found.cores, found.memory_mib, found.disk_mib) == (1, 24105, 74654)
    assert found.platform == "linux/x86_64"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[ ]",
        '[ Platform="SLC5"; Memory=0; LocalDiskSpace=0; ]',
        '[ Platform="Linux-x86_64/../../etc"; ]',
        f'[ Platform="Linux-{"x" * 100}"; ]',
        '[ Platform="-"; ]',
        '[ Platform="Linux-é"; ]',
    ],
)
def test_what_it_does_not_say_is_as_configured(text: str) -> None:
    found = TERMS.capabilities(parse_machine(text))
    assert (found.memory_mib, found.disk_mib, found.platform) == (2048, 10240, "linux/x86_64")


def test_no_number_is_too_large() -> None:
    text = "[ Memory=999999999999999; LocalDiskSpace=999999999999999; ]"
    found = TERMS.capabilities(parse_machine(text))
    assert (found.memory_mib, found.disk_mib) == (1 << 24, 1 << 28)
