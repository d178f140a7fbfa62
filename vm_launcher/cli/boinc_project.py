"""`vm-launcher boinc-project`."""

import argparse
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from re import Pattern
from typing import TYPE_CHECKING

from vm_launcher.cli.exits import Exit
from vm_launcher.cli.flags import named_as_flags
from vm_launcher.settings import SettingsError

if TYPE_CHECKING:
    from vm_launcher.boinc.task_settings import TaskSettings
    from vm_launcher.boinc_project.assemble import Assembled, Order

_EPILOG = """\
examples:
  vm-launcher boinc-project ~/projects/physics --launcher dist/vm-launcher --image .cache/image \\
      --manager https://copilot.example.org
  vm-launcher boinc-project ~/projects/physics --launcher dist/vm-launcher --image .cache/image \\
      --settings launcher.toml --version 1.01 --sign code_sign_private

A version that is there with other content is refused, a signature that is there is checked and not
replaced. A template is brought up to date unless it was edited: then it stays, with the new form
beside it. deploy/boinc/README.md goes through all of it.
"""

_FLAGS = {
    "manager": "manager",
    "xmpp": "xmpp",
    "manager_key": "manager_keys",
    "allow": "allow",
    "allow_local": "allow_local",
    "cpus": "vm.cpus",
    "memory": "vm.memory_mib",
    "disk": "vm.disk_mib",
    "allow_emulation": "vm.allow_emulation",
    "credit": "credit.way",
}
_NAMES = {dotted: f"--{name.replace('_', '-')}" for name, dotted in _FLAGS.items()} | {
    "vm.allow_emulation": "--no-emulation",
    "task.task_seconds": "--task-hours",
    "ca_certificates": "--ca-file",
}


_VERSION_FORM = "a number, a dot and two digits, as in 1.00 (not 9.1: 9.01 or 9.10)"


def add_parser(actions: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = actions.add_parser(
        "boinc-project",
        help="put the application together in a BOINC project's directory",
        description="Puts a version of the application into a BOINC project's directory: launcher,"
        " settings, image, job templates; says what to do next.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("project", type=Path, metavar="DIR", help="the project's directory, with its config.xml")
    add("--launcher", type=Path, required=True, metavar="FILE", help="the single file")
    add("--image", type=Path, required=True, metavar="DIR", help="the VM image")
    add("--image-key", type=Path, metavar="FILE", help="default: image-key.pub in the image")
    add("--app", default="copilot", metavar="NAME", help="default: copilot")
    add("--version", default="1.00", metavar="N.NN", help="default: 1.00")
    add("--results", type=int, default=3, metavar="N", help="of one workunit, at most (default 3)")
    _add_settings(parser)
    signing = parser.add_mutually_exclusive_group()
    signing.add_argument(
        "--sign",
        type=Path,
        metavar="FILE",
        help="sign what has no signature yet with this key, code_sign_private",
    )
    signing.add_argument(
        "--unsigned", action="store_true", help="say how to sign it elsewhere (the default)"
    )
    parser.set_defaults(run=run)


def _add_settings(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--settings", type=Path, metavar="FILE", help="a launcher.toml; the flags go before it")
    add("--manager", metavar="URL", help="base URL of the manager")
    add("--xmpp", metavar="HOST:PORT", help="its XMPP server")
    add(
        "--manager-key",
        action="append",
        metavar="KEY",
        help="the manager's, as `copilot whoami` shows it: receipts of others are not kept",
    )
    add("--ca-file", type=Path, metavar="FILE", help="PEM, trusted for the manager besides others")
    add("--allow", action="append", metavar="HOST:PORT", help="the guest may reach this too")
    add("--allow-local", action="append", metavar="HOST:PORT", help="same, in the own network")
    add("--cpus", type=int, metavar="N", help="virtual CPUs, at most (default 1)")
    add("--memory", type=int, metavar="MIB", help="the VM's memory (default 512)")
    add("--disk", type=int, metavar="MIB", help="most that its throw-away disk takes (2048)")
    add(
        "--no-emulation",
        dest="allow_emulation",
        action="store_const",
        const=False,
        help="only for PCs that have KVM",
    )
    add("--task-hours", type=float, metavar="H", help="running time of a task (default 24)")
    add("--credit", choices=("receipts", "trickles"), help="the one way it is granted by")


def run(parsed: argparse.Namespace) -> Exit:
    from vm_launcher.boinc_project.assemble import assemble
    from vm_launcher.boinc_project.warnings import warnings

    order = _order(parsed)
    try:
        made = assemble(order, datetime.now(UTC))
    except OSError as error:
        raise SettingsError(
            f"{error.filename or order.project}: {error.strerror}",
            remedy="correct the permissions or free some space; nothing half-made was left",
        ) from None
    for line in _report(order, made):
        print(line)
    for warning in warnings(order.settings):
        print(f"vm-launcher: warning: {warning}", file=sys.stderr)
    return Exit.OK


def _order(parsed: argparse.Namespace) -> "Order":
    from vm_launcher.boinc_project.assemble import Order
    from vm_launcher.boinc_project.key_files import read_private_key
    from vm_launcher.boinc_project.names import APP_NAME, VERSION_NUMBER

    if not 1 <= parsed.results <= 100:
        raise SettingsError("--results: must be 1 to 100")
    return Order(
        project=parsed.project,
        launcher=parsed.launcher,
        image=parsed.image,
        image_key=parsed.image_key or parsed.image / "image-key.pub",
        settings=_settings(parsed),
        app=_checked("--app", APP_NAME, parsed.app, "lower-case letters, digits and _, as copilot"),
        version=_checked("--version", VERSION_NUMBER, parsed.version, _VERSION_FORM),
        results=parsed.results,
        key=read_private_key(parsed.sign, "--sign") if parsed.sign else None,
    )


def _settings(parsed: argparse.Namespace) -> "TaskSettings":
    from vm_launcher.boinc.task_settings import load_task_settings

    flags = {dotted: getattr(parsed, name) for name, dotted in _FLAGS.items()}
    if parsed.task_hours is not None:
        if not 0 < parsed.task_hours <= 720:
            raise SettingsError("--task-hours: must be more than 0, at most 720")
        flags["task.task_seconds"] = round(parsed.task_hours * 3600)
    if parsed.ca_file is not None:
        flags["ca_certificates"] = _read("--ca-file", parsed.ca_file)
    try:
        return load_task_settings(parsed.settings, flags)
    except SettingsError as error:
        raise named_as_flags(error, _NAMES, flags) from None


def _read(flag: str, path: Path) -> str:
    try:
        return path.read_text("ascii")
    except OSError as error:
        raise SettingsError(f"{flag}: {path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise SettingsError(f"{flag}: {path} is no text of ASCII characters") from None


def _checked(flag: str, form: Pattern[str], value: str, what: str) -> str:
    if not form.fullmatch(value):
        raise SettingsError(f"{flag}: must be {what}")
    return value


def _report(order: "Order", made: "Assembled") -> list[str]:
    from vm_launcher.boinc_project.bounds import bounds

    lines = [f"{'assembled' if made.is_new else 'already there'}: {made.directory}"]
    for file in made.files:
        size = (made.directory / file.physical).stat().st_size
        lines.append(f"  {size / 1e6:7.1f} MB  {file.physical}")
    limits = bounds(order.settings)
    lines.append(
        f"deadline: {limits.delay / 86400:.1f} days from sending a task (<delay_bound> of the"
        f" template), enough for a PC that is on for {limits.hours_a_day:.1f} hours a day"
    )
    return [*lines, "", "next, in the project's directory:", *_steps(order, made)]


def _by_hand(order: "Order", made: "Assembled") -> Iterator[str]:
    from vm_launcher.boinc_project.templates import GRANTED_BY

    for new in made.to_compare:
        kept = new.relative_to(order.project).with_suffix("")
        yield f"{kept} was edited and stays: take over what is new in {kept}.new by hand"
    if made.other_credit is not None:
        before, other = made.other_credit, GRANTED_BY[order.settings.credit.other]
        yield (
            f"credit came another way in {before}: when none of its tasks is left, take {other}\n"
            "     out of config.xml, for two ways would grant the same work twice (docs/credit.md)"
        )


def _steps(order: "Order", made: "Assembled") -> list[str]:
    from vm_launcher.boinc_project.assemble import SNIPPETS

    where = made.directory.relative_to(order.project)
    steps = [*_by_hand(order, made)]
    steps += [
        f"once: add {SNIPPETS}/project.xml to project.xml, then bin/xadd",
        f"once: add {SNIPPETS}/plan_class_spec.xml to plan_class_spec.xml",
        f"once: add the daemons of {SNIPPETS}/config.xml to config.xml (docs/credit.md)",
    ]
    if not made.signed:
        steps.append(
            f"sign it, on a computer without a network that has code_sign_private and a copy of\n"
            f"     {where}:\n"
            f"     vm-launcher boinc-sign code_sign_private {where.name}\n"
            "     and bring the .sig files back into that directory (a project without a key:\n"
            "     vm-launcher boinc-sign --new-key DIR)"
        )
    steps += ["bin/update_versions, bin/stop, bin/start", "bin/make-work makes workunits"]
    return [f"  {number}. {step}" for number, step in enumerate(steps, start=1)]
