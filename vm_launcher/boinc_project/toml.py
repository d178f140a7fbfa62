"""Writes launcher.toml."""

import json

from vm_launcher.boinc.task_settings import TaskSettings


def settings_text(settings: TaskSettings) -> str:
    """Every field, also where it has its default: the next version's defaults may be others."""
    values = settings.model_dump(mode="json")
    plain = {name: value for name, value in values.items() if not isinstance(value, dict)}
    tables = {name: value for name, value in values.items() if isinstance(value, dict)}
    text = "# Settings of each task; made by `vm-launcher boinc-project`, the same for all.\n"
    text += _lines(plain)
    return text + "".join(f"\n[{name}]\n{_lines(table)}" for name, table in tables.items())


def _lines(values: dict[str, object]) -> str:
    # of ASCII text, numbers, booleans and lists of them, JSON's form is TOML's as well
    return "".join(f"{name} = {json.dumps(value)}\n" for name, value in values.items())
