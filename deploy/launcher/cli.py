"""`python -m deploy.launcher`: run by the interpreter of an environment with PyInstaller."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from deploy.launcher.build import build, size_in_words


def main() -> int:
    parsed = _parser().parse_args()
    try:
        made = build(parsed.cache, lambda line: print(line, flush=True))
    except subprocess.CalledProcessError as error:
        print(
            f"the launcher was not built; its last words:\n{error.output[-4000:]}", file=sys.stderr
        )
        return 1
    if parsed.out is not None:
        parsed.out.parent.mkdir(parents=True, exist_ok=True)
        part = parsed.out.with_name(f".{parsed.out.name}.part")
        part.write_bytes(made.read_bytes())
        part.chmod(0o755)
        part.replace(parsed.out)
    print(f"{parsed.out or made}: {size_in_words(made)}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m deploy.launcher",
        description="Builds the launcher as one file, unless it is there and up to date.",
    )
    add = parser.add_argument
    add("--cache", type=Path, required=True, help="the file is made there, with what it takes")
    add("--out", type=Path, help="a copy goes here")
    return parser
