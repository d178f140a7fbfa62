"""Drivers by name, from the entry-point group `copilot.drivers`."""

from importlib.metadata import entry_points

from vm_launcher.drivers.base import Driver, DriverError

GROUP = "copilot.drivers"


def driver_names() -> list[str]:
    return sorted(point.name for point in entry_points(group=GROUP))


def load_driver(name: str) -> Driver:
    """Raises `DriverError` when there is none of that name, or it is no driver."""
    for point in entry_points(group=GROUP):
        if point.name == name:
            driver = point.load()()
            if not isinstance(driver, Driver):
                raise DriverError(f"driver {name!r} does not implement the Driver interface")
            return driver
    known = ", ".join(driver_names()) or "none"
    raise DriverError(f"no driver is called {name!r}", remedy=f"installed drivers: {known}")
