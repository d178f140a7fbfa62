"""`python -m deploy.image`: build, lock, show, verify."""

from __future__ import annotations

import argparse
import datetime as dt
import importlib.metadata
import signal
import sys
import tempfile
from pathlib import Path
from types import FrameType

from deploy.image.build import PUBLIC_KEY, build_image
from deploy.image.debs import resolve
from deploy.image.files import locked, write_bytes
from deploy.image.lock import LOCK_FILE, REQUIREMENTS, read_lock, write_lock
from deploy.image.problems import BuildError
from deploy.image.wheels import lock_requirements
from vm_launcher.images import ImageError, Manifest, load_image, read_public_key
from vm_launcher.images.manifest import MANIFEST
from vm_launcher.images.store import parse_manifest, read_small

_EXAMPLES = """examples:
  python -m deploy.image build --cache .cache/image-build --out .cache/image
  python -m deploy.image show .cache/image
  python -m deploy.image verify .cache/image
  python -m deploy.image lock --cache .cache/image-build
"""


def _say(line: str) -> None:
    print(line, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m deploy.image",
        description="Builds the virtual machine's image; needs no root.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    build = commands.add_parser("build", help="build, sign and show an image")
    build.add_argument("--cache", type=Path, required=True, help="downloads and finished layers")
    build.add_argument("--out", type=Path, required=True, help="where the image goes")
    build.add_argument(
        "--key", type=Path, help="Ed25519 private key (PEM); default: one in the cache"
    )
    build.add_argument(
        "--agent-tree",
        type=Path,
        help="directory of the package copilot_agent; default: the repository's",
    )
    lock = commands.add_parser("lock", help="resolve packages and wheels afresh")
    lock.add_argument("--cache", type=Path, required=True)
    for name, text in (
        ("show", "print sizes and contents"),
        ("verify", "check signature and hashes"),
    ):
        command = commands.add_parser(name, help=text)
        command.add_argument("image", type=Path, metavar="DIR")
        if name == "verify":
            command.add_argument(
                "--key", type=Path, help="trusted public key; default: the one in DIR"
            )
    return parser


def show(manifest: Manifest) -> None:
    _say(f"image {manifest.name}, serial {manifest.serial}, {manifest.architecture}")
    _say(f"created {manifest.created:%Y-%m-%d}, expires {manifest.expires:%Y-%m-%d}")
    for layer in manifest.layers:
        plain = f" (unpacked {layer.unpacked_size / 1e6:.1f} MB)" if layer.unpacked_size else ""
        _say(f"  {layer.role:7} {layer.size / 1e6:6.2f} MB  {layer.file}{plain}")
    _say(f"  total   {sum(layer.size for layer in manifest.layers) / 1e6:6.2f} MB")
    for title, parts in (
        ("Debian packages", manifest.contents.packages),
        ("wheels", manifest.contents.wheels),
    ):
        _say(f"{title}: " + ", ".join(f"{part.name} {part.version}" for part in parts))


def _lock(cache: Path) -> None:
    serial = read_lock().serial if LOCK_FILE.is_file() else 0
    installed = {
        str(found.metadata["Name"]): found.version for found in importlib.metadata.distributions()
    }
    _say("wheels: asking the public index")
    write_bytes(REQUIREMENTS, lock_requirements(installed).encode())
    lock = resolve(cache, serial, _say)
    write_lock(lock)
    _say(
        f"lock: serial {lock.serial}, {len(lock.packages) + 1} packages of {lock.snapshot:%Y-%m-%d}"
    )


def _verify(directory: Path, key: Path | None) -> None:
    trusted = read_public_key(key or directory / PUBLIC_KEY)
    with tempfile.TemporaryDirectory() as scratch:
        image = load_image(
            directory, trusted_keys=[trusted], now=dt.datetime.now(dt.UTC), state=Path(scratch)
        )
    _say(f"good: serial {image.manifest.serial}, image_sha256 {image.sha256}")


def _terminated(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _run(args: argparse.Namespace) -> None:
    match args.command:
        case "build":
            show(build_image(args.cache, args.out, _say, args.key, args.agent_tree))
        case "lock":
            with locked(args.cache, lambda: _say("another build uses this cache, waiting")):
                _lock(args.cache)
        case "show":
            show(parse_manifest(read_small(args.image / MANIFEST)))
        case _:
            _verify(args.image, args.key)


def main(argv: list[str] | None = None) -> int:
    """Exit codes: 0 done, 1 failed (said on standard error), 130 stopped."""
    args = _parser().parse_args(argv)
    signal.signal(signal.SIGTERM, _terminated)
    try:
        _run(args)
    except (BuildError, ImageError) as error:
        print(f"error: {error}", file=sys.stderr)
        if isinstance(error, BuildError) and error.remedy:
            print(f"remedy: {error.remedy}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped; finished parts stay in the cache", file=sys.stderr)
        return 130
    return 0
