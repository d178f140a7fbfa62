"""What the version before this one has told its tasks."""

from pathlib import Path

from vm_launcher.boinc.task_settings import TaskSettings, load_task_settings
from vm_launcher.boinc_project.names import PLAN_CLASS, PLATFORM, VERSION_NUMBER
from vm_launcher.boinc_project.version import PARTS
from vm_launcher.settings import SettingsError


def version_before(versions: Path, number: str) -> str | None:
    """The highest below `number` in the directory of an application."""
    found = (path.name for path in versions.iterdir() if VERSION_NUMBER.fullmatch(path.name))
    return max((one for one in found if _order(one) < _order(number)), key=_order, default=None)


def settings_of(version: Path) -> TaskSettings | None:
    """None if it is not ours, or so old that its settings cannot be read any more."""
    part = PARTS["settings"]
    directory = version / f"{PLATFORM}__{PLAN_CLASS}"
    for path in sorted(directory.glob(f"*_{part.stem}_*{part.ending}")):
        try:
            return load_task_settings(path)
        except SettingsError:
            continue
    return None


def _order(number: str) -> tuple[int, ...]:
    return tuple(int(part) for part in number.split("."))
