"""The doors: what the models let in and what they refuse."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from copilot_agent.protocol.capabilities import Capabilities
from copilot_agent.protocol.guest import GUEST_MESSAGE, HOST_MESSAGE, Stop, VmUsage
from copilot_agent.protocol.ids import make_id
from copilot_agent.protocol.job import FailureClass, InputFile, JobSpec, OutputFile, Requirements
from copilot_agent.protocol.receipt import canonical_json

NAMES: TypeAdapter[OutputFile] = TypeAdapter(OutputFile)


@given(st.floats(0, 4e9), st.floats(0, 4e9), st.integers(0, 2**50 - 1), st.integers(0, 2**50 - 1))
def test_ids_sort_by_time(one: float, other: float, chance: int, luck: int) -> None:
    first, second = make_id("j", min(one, other), chance), make_id("j", max(one, other), luck)
    assert len(first) == 22
    assert first[:12] <= second[:12]


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "/x", "../x", "a/../b", "a//b", "a/", ".hidden", "a/.b", "a\0b", "a\n", "a b",
     "x" * 10_000, "a\\b", "ü", "a/" * 9 + "b", "\u202ea"],
)  # fmt: skip
def test_hostile_names_are_refused(name: str) -> None:
    with pytest.raises(ValidationError):
        OutputFile(name=name)


@given(st.text(max_size=40))
def test_any_accepted_name_stays_inside(name: str) -> None:
    try:
        OutputFile(name=name)
    except ValidationError:
        return
    parts = name.split("/")
    assert not name.startswith("/")
    assert all(part and not part.startswith(".") for part in parts)


def test_reserved_and_double_names_are_refused() -> None:
    for outputs in ([{"name": "stdout.log"}], [{"name": "a"}, {"name": "a"}]):
        with pytest.raises(ValidationError):
            JobSpec.model_validate({"experiment": "e", "command": ["x"], "outputs": outputs})


def test_an_input_below_another_input_is_refused() -> None:
    files = [InputFile(name=name, sha256="0" * 64, size=1) for name in ("a", "a/b")]
    with pytest.raises(ValidationError, match="both a file and a directory"):
        JobSpec(experiment="e", command=("x",), inputs=tuple(files))


def test_unknown_fields_of_a_job_are_refused() -> None:
    with pytest.raises(ValidationError, match="colour"):
        JobSpec.model_validate({"experiment": "e", "command": ["x"], "colour": "red"})


def test_only_the_fault_of_job_or_its_surroundings_is_charged() -> None:
    free = {cls for cls in FailureClass if not cls.costs_attempt}
    assert FailureClass.HOST in free
    assert FailureClass.VOLUNTEER_LEFT in free
    assert FailureClass.PAYLOAD not in free


def test_fits_compares_each_requirement() -> None:
    offer = Capabilities(cores=2, memory_mib=512, disk_mib=100, cpu_flags=("avx2", "sse4_2"))
    assert offer.fits(Requirements(cores=2, memory_mib=512, disk_mib=100, cpu_flags=("avx2",)))
    for need in (
        Requirements(cores=3),
        Requirements(memory_mib=513, disk_mib=1),
        Requirements(disk_mib=101),
        Requirements(disk_mib=1, cpu_flags=("avx512f",)),
        Requirements(disk_mib=1, platform="linux/arm64"),
    ):
        assert not offer.fits(need)


def test_guest_messages_are_told_apart_by_type() -> None:
    assert isinstance(HOST_MESSAGE.validate_json(b'{"type":"stop","new_field":1}'), Stop)
    with pytest.raises(ValidationError):
        GUEST_MESSAGE.validate_json(b'{"type":"hello","epoch":-1,"agent_version":"1"}')


def test_what_a_vm_has_cost_is_a_sound_number() -> None:
    assert HOST_MESSAGE.validate_json(VmUsage(cpu_seconds=2.5).model_dump_json()) == VmUsage(
        cpu_seconds=2.5
    )
    for nonsense in ("-1", "1e13", "NaN", "Infinity", '"many"', "null"):
        with pytest.raises(ValidationError):
            HOST_MESSAGE.validate_json(f'{{"type":"usage","cpu_seconds":{nonsense}}}')


def test_canonical_json_has_one_form() -> None:
    assert canonical_json({"b": 1.5, "a": "ü"}) == b'{"a":"\\u00fc","b":1.5}'
    with pytest.raises(ValueError, match="JSON"):
        canonical_json({"a": float("nan")})
