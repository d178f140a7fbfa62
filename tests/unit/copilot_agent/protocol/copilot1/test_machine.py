"""The description of an agent's machine."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from copilot_agent.protocol.copilot1.errors import StanzaError
from copilot_agent.protocol.copilot1.machine import Machine, machine_text, parse_machine
from tests.unit.copilot_agent.protocol.copilot1.strategies import machines

AS_RECORDED = (
    '[\nUname="6.18.44-fc-v657";\nPlatform="Linux-x86_64";\nType="machine";\nWNHost="vm";\n'
    'Memory=24105;\nFreeMemory=14986;\nRequirements=(other.Type=="Job");\n'
    'LocalDiskSpace=76446344;\nVersion="0";\n]\n'
)
MEANT = Machine(
    host="vm",
    platform="Linux-x86_64",
    kernel="6.18.44-fc-v657",
    memory_mib=24105,
    free_memory_mib=14986,
    free_disk_kib=76446344,
)


@given(machines)
def test_any_machine_comes_back(machine: Machine) -> None:
    text = machine_text(machine)
    assert parse_machine(text) == machine
    assert parse_machine(text.replace("\n", " ")) == machine


@pytest.mark.parametrize(
    "text",
    [
        AS_RECORDED,
        AS_RECORDED.replace("\n", " "),
        AS_RECORDED.replace("\n", ""),
        AS_RECORDED.replace("=", " = ", 3),
        AS_RECORDED.replace(";\n]", "\n]"),
        "\n".join(["[", *reversed(AS_RECORDED.splitlines()[1:-1]), "]"]),
        AS_RECORDED.replace("24105", '"24105"'),
    ],
)
def test_order_spaces_and_the_last_semicolon_do_not_matter(text: str) -> None:
    assert parse_machine(text) == MEANT


def test_the_standard_entries_are_always_written() -> None:
    assert machine_text(Machine(host="vm", memory_mib=512)) == (
        '[\nWNHost="vm";\nMemory=512;\nType="machine";\nRequirements=(other.Type=="Job");\n'
        'Version="0";\n]\n'
    )


def test_entries_that_make_no_sense_are_left_out() -> None:
    text = '[Memory=-5; FreeMemory=lots; Swap=7; WNHost="a\x07"; ../x=1; Ok=yes; =; ;novalue]'
    assert parse_machine(text) == Machine(swap_mib=7, others={"Ok": "yes"})
    many = "".join(f"K{number}=1;" for number in range(100))
    assert parse_machine(f"[Memory=7;{many}]") == Machine(memory_mib=7, others={})


@given(st.text('[]=;" \nMemory0x\x00', max_size=60) | st.text(max_size=60))
def test_any_text_is_some_machine(text: str) -> None:
    machine = parse_machine(text)
    assert parse_machine(machine_text(machine)) == machine


def test_too_much_text_is_refused() -> None:
    with pytest.raises(StanzaError, match=r"^jdl: is longer than 16384 characters$"):
        parse_machine("[" + '"' * 10_000_000)
