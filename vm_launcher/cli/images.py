"""`vm-launcher image verify|show|fetch`."""

import argparse
import sys
from datetime import UTC, datetime
from pathlib import Path

from vm_launcher.cli.exits import Exit
from vm_launcher.images import Manifest, fetch_image, load_image, read_public_key
from vm_launcher.images.manifest import MANIFEST
from vm_launcher.images.store import parse_manifest, read_small


def add_parser(actions: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = actions.add_parser("image", help="verify, show or fetch a VM image")
    images = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    checked = images.add_parser("verify", help="check signature, expiry and every layer")
    checked.add_argument("image", type=Path, metavar="DIR")
    _add_key(checked)
    checked.add_argument(
        "--state",
        type=Path,
        required=True,
        metavar="DIR",
        help="the launcher's directory, which knows the newest image seen",
    )
    checked.set_defaults(run=verify)
    shown = images.add_parser("show", help="what is inside, without checking it")
    shown.add_argument("image", type=Path, metavar="DIR")
    shown.set_defaults(run=show)
    text = "copy an image from a URL or a directory, checking it"
    fetched = images.add_parser(
        "fetch",
        help=text,
        description=f"{text}; prints the directory for `run --image`".capitalize(),
    )
    fetched.add_argument("source", metavar="URL", help="or a directory: where manifest.json lies")
    fetched.add_argument("into", type=Path, metavar="DIR", help="the image goes into DIR/SERIAL")
    _add_key(fetched)
    fetched.set_defaults(run=fetch)


def _add_key(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--image-key",
        type=Path,
        required=True,
        metavar="FILE",
        help="public key that must have signed it",
    )


def verify(parsed: argparse.Namespace) -> Exit:
    image = load_image(
        parsed.image,
        trusted_keys=[read_public_key(parsed.image_key)],
        now=datetime.now(UTC),
        state=parsed.state,
    )
    print(f"good: serial {image.manifest.serial}, expires {image.manifest.expires:%Y-%m-%d}")
    print(f"sha256 {image.sha256}")
    return Exit.OK


def show(parsed: argparse.Namespace) -> Exit:
    _show(parse_manifest(read_small(parsed.image / MANIFEST)))
    return Exit.OK


def fetch(parsed: argparse.Namespace) -> Exit:
    key = read_public_key(parsed.image_key)
    directory = fetch_image(parsed.source, parsed.into, [key], _Progress().show)
    print(directory)
    return Exit.OK


def _show(manifest: Manifest) -> None:
    print(f"{manifest.name} serial {manifest.serial} for {manifest.architecture}")
    print(f"created {manifest.created:%Y-%m-%d %H:%M}, expires {manifest.expires:%Y-%m-%d}")
    for layer in manifest.layers:
        print(f"{layer.role:8} {layer.size / 1e6:7.1f} MB  {layer.sha256}  {layer.file}")
    for kind, parts in (
        ("package", manifest.contents.packages),
        ("wheel", manifest.contents.wheels),
    ):
        for part in parts:
            print(f"{kind:8} {part.name} {part.version}")


class _Progress:
    """A line for every tenth of a file."""

    def __init__(self) -> None:
        self._said: tuple[str, int] | None = None

    def show(self, file: str, done: int, size: int) -> None:
        tenth = 10 * done // max(size, 1)
        if self._said != (file, tenth):
            self._said = (file, tenth)
            print(f"{file}: {10 * tenth} % of {size / 1e6:.1f} MB", file=sys.stderr)
