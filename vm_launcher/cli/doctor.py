"""`vm-launcher doctor`."""

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from pydantic import ValidationError

from vm_launcher.cli.exits import Exit
from vm_launcher.doctor import CHECKS, Finding, Level, Question
from vm_launcher.settings import SettingsError, VmSettings

_SIGNS = {Level.OK: "ok  ", Level.WARN: "warn", Level.FAIL: "FAIL"}


def add_parser(actions: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    text = "can a VM run here, and if not, what is to be done"
    parser = actions.add_parser(
        "doctor",
        help=text,
        description="Looks whether a VM can run here, and says what is to be done if not. "
        "Only what is named is checked. Exit code 4 if anything fails.",
    )
    add = parser.add_argument
    add("--state", type=Path, metavar="DIR", help="can the launcher keep its files there")
    add("--image", type=Path, metavar="DIR", help="is it whole and signed (with --image-key)")
    add("--image-key", type=Path, metavar="FILE", help="public key that must have signed it")
    add("--manager", metavar="URL", help="does it answer")
    vm = VmSettings()
    add("--memory", type=int, default=vm.memory_mib, metavar="MIB", help="is there so much")
    add("--disk", type=int, default=vm.disk_mib, metavar="MIB", help="is there so much")
    add("--no-emulation", action="store_true", help="software emulation would not do")
    add("--output", choices=("text", "json"), default="text")
    parser.set_defaults(run=run)


def run(parsed: argparse.Namespace) -> Exit:
    vm = _vm_settings(parsed)
    question = Question(vm, parsed.state, parsed.image, parsed.image_key, parsed.manager)
    findings = []
    for check in CHECKS:
        finding = check.look(question)
        if finding is not None:
            findings.append(finding)
            if parsed.output == "text":
                _show(finding)
    if parsed.output == "json":
        print(json.dumps([asdict(finding) for finding in findings], indent=1))
    failed = any(finding.level is Level.FAIL for finding in findings)
    return Exit.HOST if failed else Exit.OK


def _vm_settings(parsed: argparse.Namespace) -> VmSettings:
    try:
        return VmSettings(
            memory_mib=parsed.memory, disk_mib=parsed.disk, allow_emulation=not parsed.no_emulation
        )
    except ValidationError as error:
        first = error.errors()[0]
        raise SettingsError(f"{first['loc'][0]}: {first['msg']}") from None


def _show(finding: Finding) -> None:
    print(f"{_SIGNS[finding.level]}  {finding.check}: {finding.text}", flush=True)
    if finding.remedy:
        print(f"        try: {finding.remedy}", flush=True)
