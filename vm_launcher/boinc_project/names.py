"""Names that a project's server, its clients and our checker agree on."""

import re

PLATFORM = "x86_64-pc-linux-gnu"
PLAN_CLASS = "copilot_vm"
"""Must contain none of vbox, docker, wsl and mt: clients and servers treat those specially."""

MAIN_ARGUMENT = "boinc-task"
"""With it the launcher runs as the main program of a task."""

ENROLMENT = "enrolment"
RECEIPTS = "receipts"
"""Logical names of a workunit's input and output file."""

APP_NAME = re.compile(r"[a-z][a-z0-9_]{0,31}", re.ASCII)
VERSION_NUMBER = re.compile(r"[0-9]{1,4}\.[0-9]{2}", re.ASCII)
"""Major and minor, as in 1.00; BOINC counts it as 100."""
