"""When the launcher tells its guest what the VM has cost."""

from copilot_agent.protocol.guest import HostMessage, VmUsage
from vm_launcher.channels.ctrl import ChannelDownError, HostChannel
from vm_launcher.drivers.base import Usage
from vm_launcher.host_words import UsageNews


class Line(HostChannel):
    """Keeps what is said; may be down."""

    def __init__(self) -> None:
        self.said: list[HostMessage] = []
        self.down = False

    async def send(self, message: HostMessage) -> None:
        if self.down:
            raise ChannelDownError("nobody reads")
        self.said.append(message)


def used(seconds: float) -> Usage:
    return Usage(cpu_seconds=seconds, memory_bytes=1, disk_bytes=1)


async def test_every_five_seconds_is_enough() -> None:
    news, line = UsageNews(), Line()
    for second in range(11):
        await news.tell(line, used(0.5 * second), 1000.0 + second)
    assert line.said == [VmUsage(cpu_seconds=each) for each in (0.0, 2.5, 5.0)]


async def test_a_guest_that_is_not_there_hears_the_next() -> None:
    news, line = UsageNews(), Line()
    line.down = True
    await news.tell(line, used(1.0), 10.0)
    line.down = False
    await news.tell(line, used(2.0), 12.0)
    await news.tell(line, used(3.0), 15.0)
    assert line.said == [VmUsage(cpu_seconds=3.0)]


async def test_the_first_word_waits_for_a_channel_and_a_look() -> None:
    news, line = UsageNews(), Line()
    await news.tell(None, used(1.0), 10.0)
    await news.tell(line, None, 11.0)
    await news.tell(line, used(2.0), 12.0)
    assert line.said == [VmUsage(cpu_seconds=2.0)]
