"""Settings that came from flags are named as those when they are refused."""

from collections.abc import Mapping

from copilot_agent.protocol.errors import FieldError
from vm_launcher.settings import SettingsError

_MISSING = "is missing"


def named_as_flags(
    error: SettingsError, flags: Mapping[str, str], given: Mapping[str, object]
) -> SettingsError:
    """`flags`: the flag of each dotted path; `given`: the value of each, None if it was not."""
    if not error.errors:  # about a file
        return error
    named = [_named(one, flags, given) for one in error.errors]
    said = "; ".join(f"{one.field}: {one.message}" for one in named)
    return SettingsError(f"settings: {said}", remedy=error.remedy, errors=error.errors)


def _named(error: FieldError, flags: Mapping[str, str], given: Mapping[str, object]) -> FieldError:
    path = error.field.partition("[")[0]
    ours = given.get(path) is not None or error.message == _MISSING
    flag = flags.get(path) if ours else None
    return error if flag is None else error.model_copy(update={"field": flag})
