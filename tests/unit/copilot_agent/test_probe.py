from pathlib import Path

import pytest

from copilot_agent.probe import Given, probe

CPUINFO = """\
processor\t: 0
model name\t: Some CPU \x1b[31m@ 3 GHz
flags\t\t: fpu sse2 avx2 NOT.A.FLAG sse2

processor\t: 1
flags\t\t: other
"""


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    (tmp_path / "cpuinfo").write_text(CPUINFO)
    (tmp_path / "meminfo").write_text("MemTotal:        2048000 kB\nMemFree: 1 kB\n")
    return {"cpuinfo": tmp_path / "cpuinfo", "meminfo": tmp_path / "meminfo"}


def test_what_is_given_is_offered(tmp_path: Path, files: dict[str, Path]) -> None:
    found = probe(tmp_path, ("uid",), Given(2, 512, 1, "tcg"), **files)
    assert (found.cores, found.memory_mib, found.disk_mib) == (2, 512, 1)
    assert (found.accelerator, found.confinement) == ("tcg", ("uid",))


def test_memory_leaves_room_for_the_agent(tmp_path: Path, files: dict[str, Path]) -> None:
    assert probe(tmp_path, (), Given(), **files).memory_mib == 2000 - 128


def test_flags_and_model_are_those_of_the_first_cpu_and_clean(
    tmp_path: Path, files: dict[str, Path]
) -> None:
    found = probe(tmp_path, (), Given(), **files)
    assert found.cpu_flags == ("avx2", "fpu", "sse2")
    assert found.cpu_model == "Some CPU [31m@ 3 GHz"


def test_this_computer_can_be_probed(tmp_path: Path) -> None:
    found = probe(tmp_path, (), Given())
    assert found.cores >= 1
    assert found.platform.startswith("linux/")


def test_no_more_disk_is_offered_than_there_is(tmp_path: Path) -> None:
    assert probe(tmp_path, (), Given(disk_mib=1 << 24)).disk_mib < 1 << 24
