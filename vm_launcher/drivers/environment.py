"""What a child program finds in its environment."""

import os


def plain_environment() -> dict[str, str]:
    """The host's programs must not load libraries by the path that BOINC's client sets (it leads
    to projects' files), nor those that a frozen launcher brings for itself."""
    return {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"}
