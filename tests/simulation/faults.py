"""Faults: how each is made, how long it lasts, how the world is put in order again."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from tests.simulation.host import Host
from tests.simulation.steps import ALL
from tests.simulation.wire import DOWN, UP
from vm_launcher.core.events import Ask

if TYPE_CHECKING:
    from tests.simulation.world import World

DAY = 86400.0
BOOT_SECONDS = 12.0
"""Until a virtual machine that crashed is up again, at most."""


def _agent_crash(world: "World", host: Host) -> None:
    host.crash_agent()
    world.trouble("agent-crash", host, 3.0)


def _vm_crash(world: "World", host: Host) -> None:
    host.crash_vm()
    world.trouble("vm-crash", host, BOOT_SECONDS)


def _vm_pause(world: "World", host: Host) -> None:
    seconds = world.choose(3.0, 15.0, 25.0, 35.0, 50.0, 75.0)
    host.ask(Ask.PAUSE)
    world.trouble("vm-pause", host, seconds + 3.0)
    world.universe.after(seconds, host.ask, Ask.RESUME)


def _vm_stall(world: "World", host: Host) -> None:
    seconds = world.choose(
        1.0, 8.0, 20.0, 40.0, world.about_a_lease(host), world.about_a_lease(host)
    )
    host.stall()
    world.trouble("vm-stall", host, seconds)
    world.universe.after(seconds, host.go_on)


def _rollback(world: "World", host: Host) -> None:
    if host.snapshot is not None or host.take_snapshot():
        host.roll_back()
    world.trouble("rollback", host, BOOT_SECONDS)


def _clock_pilot(world: "World", host: Host) -> None:
    host.set_clock(world.choose(3 * DAY, -3 * DAY, 3600.0, -3600.0, 45.0))
    world.trouble("clock-pilot", host, 6.0)


def _partition(kind: str, directions: tuple[str, ...]) -> Callable[["World", Host], None]:
    def apply(world: "World", host: Host) -> None:
        seconds = world.choose(1.0, 10.0, 20.0, 45.0, world.about_a_lease(host))
        victims = world.hosts if world.universe.random.random() < 0.2 else [host]
        for each in victims:
            each.line.partition(directions)
            world.trouble(kind, each, seconds)
            world.universe.after(seconds, each.line.heal)

    return apply


def _cut(world: "World", host: Host) -> None:
    host.line.cut()
    world.trouble("cut", host, 5.0)


def _noise(world: "World", host: Host) -> None:
    line, seconds = host.line, world.choose(5.0, 30.0)
    line.slowness, line.loss, line.twice = 50.0, 0.2, 0.2

    def over() -> None:
        line.slowness, line.loss, line.twice = 1.0, 0.0, 0.0

    if world.server.xmpp is not None and world.universe.random.random() < 0.5:
        world.universe.after(world.universe.random.uniform(0.0, seconds), line.cut)
    world.trouble("noise", host, seconds + 10.0)
    world.universe.after(seconds, over)


def _manager_crash(world: "World", host: Host) -> None:
    seconds = world.choose(0.5, 3.0, 10.0, 40.0)
    world.manager.crash()
    world.trouble("manager-crash", None, seconds)
    world.universe.after(seconds, world.manager.start)


def _store_crash(world: "World", host: Host) -> None:
    seconds = world.choose(0.2, 4.0, 15.0)
    world.database.crash()
    world.trouble("store-crash", None, seconds)
    world.universe.after(seconds, world.database.start)


def _xmpp_crash(world: "World", host: Host) -> None:
    seconds, server = world.choose(0.2, 4.0, 15.0, 40.0), world.server.xmpp
    if server is None:
        raise AssertionError("this schedule has no XMPP server")
    server.crash()
    world.trouble("xmpp-crash", None, seconds)
    world.universe.after(seconds, server.start)


def _clock_manager(world: "World", host: Host) -> None:
    world.manager.clock.wall_offset += world.choose(3 * DAY, -3 * DAY, 3600.0, -3600.0, 45.0)
    world.trouble("clock-manager", None, 1.0)


FAULTS: dict[str, Callable[["World", Host], None]] = {
    "agent-crash": _agent_crash,
    "vm-crash": _vm_crash,
    "vm-pause": _vm_pause,
    "vm-stall": _vm_stall,
    "rollback": _rollback,
    "clock-pilot": _clock_pilot,
    "part-up": _partition("part-up", (UP,)),
    "part-down": _partition("part-down", (DOWN,)),
    "part-both": _partition("part-both", (UP, DOWN)),
    "cut": _cut,
    "noise": _noise,
    "manager-crash": _manager_crash,
    "store-crash": _store_crash,
    "clock-manager": _clock_manager,
    "xmpp-crash": _xmpp_crash,
}
XMPP_FAULTS = frozenset({"xmpp-crash"})
"""These need pilots that talk over XMPP."""
EVERYBODYS = frozenset({"manager-crash", "store-crash", "clock-manager", *XMPP_FAULTS})
"""Of these all pilots are victims."""


def victim(kind: str, host: Host) -> str:
    return ALL if kind in EVERYBODYS else host.name
