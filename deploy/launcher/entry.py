"""What the single file runs, unpacked by `header.sh`."""

import atexit
import os
import shutil
import sys
from pathlib import Path


def main() -> int:
    from vm_launcher.drivers.accelerator import PROBE_COMMAND

    if sys.argv[1:2] == [PROBE_COMMAND]:
        return probe(sys.argv[2])
    from vm_launcher.cli import main as command

    return command()


def probe(device: str) -> int:
    from vm_launcher.drivers import kvm_probe

    sys.argv[1:] = [device]
    kvm_probe.main()
    return 0


def remove_unpacked() -> None:
    """The directory that the header has made for this process, and no other."""
    unpacked = Path(sys.executable).parent
    if unpacked.name.startswith(f".vm-launcher-{os.getpid()}-"):
        shutil.rmtree(unpacked, ignore_errors=True)


if __name__ == "__main__":
    atexit.register(remove_unpacked)  # the first one, so that it comes last
    try:
        sys.exit(main())
    except KeyboardInterrupt:  # while it was still loading
        sys.exit(130)
