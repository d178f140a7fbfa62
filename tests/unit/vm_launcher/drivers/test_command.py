"""QEMU's command line."""

from pathlib import Path

import pytest

from vm_launcher.drivers.base import Disk, VmSpec
from vm_launcher.drivers.qemu.command import Descriptors, build, fingerprint

FILES = Descriptors(kernel=3, initrd=4, disks=(5, 6), scratch=7, qmp=8, serial=9, ctrl=10, net=11)
SPEC = VmSpec(
    name="vm",
    directory=Path("/s/vm"),
    ctrl_socket=Path("/s/ctrl"),
    net_socket=Path("/s/net"),
    kernel=Path("/i/kernel"),
    initrd=Path("/i/initrd"),
    command_line="quiet panic=1",
    disks=(Disk(serial="base", path=Path("/i/base")), Disk(serial="agent", path=Path("/i/agent"))),
    image_sha256="a" * 64,
    cores=2,
    memory_mib=768,
)


def arguments(spec: VmSpec = SPEC, incoming: bool = False) -> list[str]:
    return build(spec, FILES, "11111111-2222-4333-8444-555555555555", incoming, tsc_khz=2_400_000)


def value(option: str, given: list[str]) -> str:
    return given[given.index(option) + 1]


def test_the_vm_is_pinned_confined_and_has_no_network_card() -> None:
    given = arguments()
    assert value("-machine", given).startswith("pc-q35-7.2,")
    assert "spawn=deny" in value("-sandbox", given)
    assert "-nodefaults" in given
    assert "-no-user-config" in given
    assert not any(one.startswith(("-net", "-nic")) for one in given)
    assert not any("virtio-net" in one or "e1000" in one for one in given)


def test_qemu_is_given_no_path_of_the_host() -> None:
    assert not any("/i/" in one or "/s/" in one for one in arguments())


def test_disks_are_read_only_and_named_but_scratch() -> None:
    given = arguments()
    disks = [one for one in given if one.startswith("virtio-blk-pci")]
    assert [one.rpartition("serial=")[2] for one in disks] == ["base", "agent", "scratch"]
    raw = [one for one in given if one.startswith("driver=raw")]
    assert len(raw) == 2
    assert all(one.endswith("read-only=on") for one in raw)
    assert "fd=7,set=3" in given


@pytest.mark.parametrize(
    ("accelerator", "accel", "cpu"),
    [("kvm", "kvm", "host"), ("tcg", "tcg,thread=multi,tb-size=64", "max")],
)
def test_accelerators(accelerator: str, accel: str, cpu: str) -> None:
    given = arguments(SPEC.model_copy(update={"accelerator": accelerator}))
    assert (value("-accel", given), value("-cpu", given)) == (accel, cpu)


def test_an_emulated_guest_is_told_its_clocks_rate() -> None:
    assert value("-append", arguments()) == "quiet panic=1 tsc_early_khz=2400000"
    given = arguments(SPEC.model_copy(update={"accelerator": "kvm"}))
    assert value("-append", given) == "quiet panic=1"


def test_size() -> None:
    assert (value("-smp", arguments()), value("-m", arguments())) == ("2", "768")


def test_a_restore_waits_for_its_state() -> None:
    assert "-incoming" not in arguments()
    given = arguments(incoming=True)
    assert value("-incoming", given) == "defer"
    assert "-S" in given


def test_the_fingerprint_ignores_places_and_sees_changes() -> None:
    one = fingerprint(SPEC, "7.2.22")
    moved = SPEC.model_copy(update={"directory": Path("/t"), "ctrl_socket": Path("/t/c")})
    assert fingerprint(moved, "7.2.22") == one
    for change in ({"memory_mib": 512}, {"cores": 1}, {"image_sha256": "b" * 64}):
        assert fingerprint(SPEC.model_copy(update=change), "7.2.22") != one
    assert fingerprint(SPEC, "7.2.23") != one
