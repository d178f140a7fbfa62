"""`vm-launcher run`."""

import argparse
import asyncio
import json
import logging
import sys
import time
from pathlib import Path

from vm_launcher import standalone
from vm_launcher.cli.exits import Exit, exit_of_end
from vm_launcher.cli.flags import named_as_flags
from vm_launcher.settings import Settings, SettingsError, load_settings

_FLAGS = {
    "manager": "manager",
    "xmpp": "xmpp",
    "manager_key": "manager_keys",
    "image": "image",
    "image_key": "image_key",
    "enrolment_file": "enrolment_file",
    "state": "state",
    "ca_file": "ca_file",
    "cpus": "vm.cpus",
    "cpu_percent": "vm.cpu_percent",
    "memory": "vm.memory_mib",
    "disk": "vm.disk_mib",
    "accelerator": "vm.accelerator",
    "allow_emulation": "vm.allow_emulation",
    "allow": "network.allow",
    "allow_local": "network.allow_local",
}
_NAMES = {dotted: f"--{name.replace('_', '-')}" for name, dotted in _FLAGS.items()} | {
    "vm.allow_emulation": "--no-emulation",
}
_NEEDED = ("manager", "image", "image_key", "enrolment_file", "state")


class JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        entry = {
            "time": round(record.created, 3),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        return json.dumps(entry)


def add_parser(actions: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = actions.add_parser(
        "run",
        help="run the VM in the foreground until it is stopped",
        description="Runs the VM until it is stopped, finished or saved. Goes on with a saved VM.",
        epilog="Ctrl-C stops: the pilot gets 5 s to say good-bye; a second Ctrl-C stops at once.",
    )
    parser.add_argument("--config", type=Path, metavar="FILE", help="settings (TOML)")
    parser.add_argument("--log-format", choices=("text", "json"), default="text")
    parser.add_argument("--verbose", action="store_true", help="say more")
    add_settings(parser)
    parser.set_defaults(run=run)


def add_settings(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--manager", metavar="URL", help="base URL of the manager")
    add(
        "--xmpp", metavar="HOST:PORT", help="the manager's XMPP server: talk over it if it is there"
    )
    add(
        "--manager-key",
        action="append",
        metavar="KEY",
        help="as `copilot whoami` shows it: receipts that it did not sign are not kept",
    )
    add("--image", type=Path, metavar="DIR", help="the VM image: manifest.json and its layers")
    add("--image-key", type=Path, metavar="FILE", help="public key that must have signed it")
    add("--enrolment-file", type=Path, metavar="FILE", help="holds the enrolment secret")
    add("--state", type=Path, metavar="DIR", help="the launcher's own directory")
    add("--ca-file", type=Path, metavar="FILE", help="PEM, trusted for the manager besides others")
    add("--cpus", type=int, metavar="N", help="virtual CPUs (default 1)")
    add("--cpu-percent", type=int, metavar="N", help="share of each CPU (default 100)")
    add("--memory", type=int, metavar="MIB", help="the VM's memory (default 512)")
    add("--disk", type=int, metavar="MIB", help="most that its throw-away disk takes")
    add("--accelerator", choices=("auto", "kvm", "tcg"), help="default: auto")
    add(
        "--no-emulation",
        dest="allow_emulation",
        action="store_const",
        const=False,
        help="do not fall back to slow software emulation",
    )
    add("--allow", action="append", metavar="HOST:PORT", help="the guest may reach this too")
    add("--allow-local", action="append", metavar="HOST:PORT", help="same, in the own network")


def settings_of(parsed: argparse.Namespace) -> Settings:
    flags = {dotted: getattr(parsed, name, None) for name, dotted in _FLAGS.items()}
    missing = [name for name in _NEEDED if flags[name] is None]
    if missing and parsed.config is None:
        names = ", ".join(f"--{name.replace('_', '-')}" for name in missing)
        raise SettingsError(
            f"missing: {names}", remedy="give them, or a file with them: --config FILE"
        )
    try:
        return load_settings(parsed.config, flags)
    except SettingsError as error:
        raise named_as_flags(error, _NAMES, flags) from None


def run(parsed: argparse.Namespace) -> Exit:
    log_to_stderr(parsed.log_format, parsed.verbose)
    end = asyncio.run(standalone.run(settings_of(parsed)))
    level = logging.INFO if exit_of_end(end) is Exit.OK else logging.ERROR
    logging.getLogger("vm_launcher").log(level, ": ".join(filter(None, (end.outcome, end.message))))
    if end.remedy:
        logging.getLogger("vm_launcher").log(level, "try: %s", end.remedy)
    return exit_of_end(end)


def log_to_stderr(form: str, verbose: bool) -> None:
    handler = logging.StreamHandler(sys.stderr)
    if form == "json":
        handler.setFormatter(JsonFormatter())
    else:
        text = logging.Formatter("%(asctime)s %(levelname)-7s %(message)s", "%H:%M:%S")
        text.converter = time.localtime
        handler.setFormatter(text)
    logger = logging.getLogger("vm_launcher")
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG if verbose else logging.INFO)
