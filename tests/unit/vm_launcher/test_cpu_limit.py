"""The VM's share of the processor: the volunteer's limit, and rests that the client orders."""

from pathlib import Path

from vm_launcher.cpu_limit import CpuLimit
from vm_launcher.drivers.base import Handle, VmSpec
from vm_launcher.drivers.fake import FakeDriver


class Recorder(FakeDriver):
    def __init__(self) -> None:
        super().__init__()
        self.limits: list[int] = []

    async def limit(self, handle: Handle, percent: int) -> None:
        self.limits.append(percent)


def handle() -> Handle:
    here = Path("/")
    spec = VmSpec(
        name="vm",
        directory=here,
        ctrl_socket=here,
        net_socket=here,
        kernel=here,
        initrd=here,
        command_line="",
        image_sha256="0" * 64,
    )
    return Handle(driver="fake", spec=spec)


async def test_the_limit_comes_back_after_a_rest() -> None:
    driver = Recorder()
    limit = CpuLimit(driver, 50)
    await limit.hold(held=True)
    limit.follow(handle())
    await limit.apply()
    await limit.hold(held=False)
    await limit.change(70)
    assert driver.limits == [0, 50, 70]


async def test_rests_that_are_the_limit_are_not_counted_twice() -> None:
    driver = Recorder()
    limit = CpuLimit(driver, 50)
    limit.follow(handle())
    for _ in range(2):
        await limit.hold(held=True)
        await limit.hold(held=False, sole=True)
    await limit.hold(held=False)
    assert driver.limits == [0, 100, 0, 100, 50]
