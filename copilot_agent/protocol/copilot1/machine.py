"""The description of the agent's machine (jdl): `[ Key=value; ... ]` in any order.

Text stands in double quotes, in which nothing is escaped. Resent copies have spaces for newlines.
"""

import re
from collections.abc import Iterator
from typing import Annotated

from pydantic import ConfigDict, Field, StringConstraints, ValidationError

from copilot_agent.protocol.base import Wire
from copilot_agent.protocol.copilot1.errors import refused

MAX_TEXT = 16_384

Quoted = Annotated[str, StringConstraints(max_length=500, pattern=r'^[^"\x00-\x1f\x7f]*$')]
Amount = Annotated[int, Field(ge=0, lt=10**15)]
Key = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,63}$")]
Raw = Annotated[
    str,
    StringConstraints(
        max_length=2000,
        strip_whitespace=True,
        pattern=r'^(?:[^;"\x00-\x1f\x7f]|"[^"\x00-\x1f\x7f]*")*$',
    ),
]

STANDARD = {"Type": '"machine"', "Requirements": '(other.Type=="Job")', "Version": '"0"'}


class Machine(Wire):
    """None is unknown: the original leaves out what it cannot find and what is zero."""

    host: Quoted = Field("", alias="WNHost")
    platform: Quoted = Field("", alias="Platform")
    """System and processor, as in Linux-x86_64."""
    kernel: Quoted = Field("", alias="Uname")
    memory_mib: Amount | None = Field(None, alias="Memory")
    free_memory_mib: Amount | None = Field(None, alias="FreeMemory")
    swap_mib: Amount | None = Field(None, alias="Swap")
    free_swap_mib: Amount | None = Field(None, alias="FreeSwap")
    free_disk_kib: Amount | None = Field(None, alias="LocalDiskSpace")
    others: Annotated[dict[Key, Raw], Field(max_length=64)] = STANDARD
    """What has no field here, as it was written."""

    model_config = ConfigDict(validate_by_name=True, validate_by_alias=True)


_NAMES = {info.alias for info in Machine.model_fields.values() if info.alias}
_ENTRY = re.compile(r'(?:[^;"]|"[^"]*")+')


def parse_machine(text: str) -> Machine:
    """Entries that make no sense are left out. Raises StanzaError only for too much text."""
    if len(text) > MAX_TEXT:
        raise refused("jdl", f"is longer than {MAX_TEXT} characters")
    found: dict[str, object] = {}
    others: dict[str, object] = {}
    for key, value in _entries(text):
        if key in _NAMES:
            found[key] = _bare(value)
        else:
            others[key] = value
    return _made_of(found, others)


def _entries(text: str) -> Iterator[tuple[str, str]]:
    for entry in _ENTRY.findall(text.strip().removeprefix("[").removesuffix("]")):
        key, sign, value = entry.partition("=")
        if sign:
            yield key.strip(), value.strip()


def _bare(value: str) -> str:
    quoted = len(value) > 1 and value[0] == value[-1] == '"'
    return value[1:-1] if quoted else value


def _made_of(found: dict[str, object], others: dict[str, object]) -> Machine:
    try:
        return Machine.model_validate({**found, "others": others})
    except ValidationError as error:
        for name, *key in (each["loc"] for each in error.errors(include_input=False)):
            if key:
                others.pop(str(key[0]), None)
            elif name == "others":  # too many of them
                others.clear()
            else:
                found.pop(str(name))
        return Machine.model_validate({**found, "others": others})


def machine_text(machine: Machine) -> str:
    """One entry a line, each ended by a semicolon."""
    known = machine.model_dump(by_alias=True, exclude_none=True, exclude={"others"})
    entries = {key: _raw(value) for key, value in known.items() if value != ""} | machine.others
    lines = [f"{key}={value};\n" for key, value in entries.items()]
    return f"[\n{''.join(lines)}]\n"


def _raw(value: str | int) -> str:
    return f'"{value}"' if isinstance(value, str) else str(value)
