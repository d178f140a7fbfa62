"""`python -m deploy.docs [--check]`: write the generated pages, or fail if they are out of date."""

import sys
from pathlib import Path

from deploy.docs import reference

PAGES = {"protocol.md": reference.page}


def main(arguments: list[str]) -> int:
    docs = Path(__file__).resolve().parents[2] / "docs"
    stale = []
    for name, make in PAGES.items():
        target, text = docs / name, make()
        if not target.is_file() or target.read_text() != text:
            stale.append(name)
            if "--check" not in arguments:
                target.write_text(text)
    if stale and "--check" in arguments:
        print(f"out of date: {', '.join(stale)}; run python -m deploy.docs")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
