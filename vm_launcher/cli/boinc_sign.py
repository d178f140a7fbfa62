"""`vm-launcher boinc-sign`."""

import argparse
from pathlib import Path

from vm_launcher.cli.exits import Exit
from vm_launcher.settings import SettingsError

_EPILOG = """\
examples:
  vm-launcher boinc-sign --new-key keys        (once, for a project that has no key)
  vm-launcher boinc-sign keys/code_sign_private x86_64-pc-linux-gnu__copilot_vm

Needs no network and no BOINC. Both forms are those of BOINC's crypt_prog and sign_executable. A
signature that is there already is checked; none is replaced, and no key is overwritten.
"""


def add_parser(actions: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = actions.add_parser(
        "boinc-sign",
        help="sign an application version of a BOINC project, or make the key for it",
        usage="vm-launcher boinc-sign KEY DIR\n       vm-launcher boinc-sign --new-key DIR",
        description="Signs each file in DIR, which vm-launcher boinc-project has assembled, with"
        " the project's private key.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("key", type=Path, nargs="?", metavar="KEY", help="key file code_sign_private")
    add("directory", type=Path, nargs="?", metavar="DIR", help="the application version")
    add(
        "--new-key",
        type=Path,
        metavar="DIR",
        help="write code_sign_private (for your eyes only) and code_sign_public there",
    )
    parser.set_defaults(run=run)


def run(parsed: argparse.Namespace) -> Exit:
    if (parsed.new_key is None) == (parsed.directory is None) or (parsed.new_key and parsed.key):
        raise SettingsError("give KEY and DIR, or --new-key DIR, and nothing else")
    try:
        lines = _new_key(parsed.new_key) if parsed.new_key else _sign(parsed.key, parsed.directory)
    except OSError as error:
        raise SettingsError(f"{error.filename}: {error.strerror}") from None
    print("\n".join(lines))
    return Exit.OK


def _new_key(directory: Path) -> list[str]:
    from vm_launcher.boinc_project.key_files import new_key

    private, public = new_key(directory)
    return [
        f"made: {private}",
        "  it stays on a computer without a network, with a copy in a safe place",
        f"made: {public}",
        "  it goes into the directory keys of the project",
    ]


def _sign(key_file: Path, directory: Path) -> list[str]:
    from vm_launcher.boinc_project.key_files import read_private_key
    from vm_launcher.boinc_project.signatures import files_to_sign, sign

    key = read_private_key(key_file, "KEY")
    files = files_to_sign(directory)
    signed = sign(files, key)
    lines = [f"signed: {path.name}" for path in signed]
    if len(signed) < len(files):
        lines.append(f"{len(files) - len(signed)} of {len(files)} files were signed already")
    return [
        *lines,
        "next: put the .sig files beside their files in the project",
    ]
