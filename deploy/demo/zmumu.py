"""The payload: proton collisions at 13 TeV, Z to mu mu, with Pythia 8.

Standard library and pythia8mc only; the same file runs in the guest and natively. What it writes
depends on the seed alone: no times, no host.
"""

import argparse
import hashlib
import importlib
import json
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

SETTINGS = (
    "Beams:eCM = 13000.",
    "WeakSingleBoson:ffbar2gmZ = on",
    "23:onMode = off",
    "23:onIfAny = 13",
    "PhaseSpace:mHatMin = 66.",
    "PhaseSpace:mHatMax = 116.",
    "Print:quiet = on",
    "Random:setSeed = on",
)


def find_pythia(directory: Path) -> None:
    """`directory` is the unpacked wheel: the module at its root, the settings deep inside."""
    settings = next(directory.glob("*.data/data/share/Pythia8/xmldoc"))
    os.environ["PYTHIA8DATA"] = str(settings)
    sys.path.insert(0, str(directory))


def dimuon_mass(event: Iterable[Any]) -> float | None:
    """Invariant mass in GeV of the muons as the Z's decay makes them (status 23), before they
    radiate photons; None if the Z is not in this event."""
    muons = [p for p in event if p.idAbs() == 13 and p.statusAbs() == 23]
    if len(muons) != 2:
        return None
    return float((muons[0].p() + muons[1].p()).mCalc())


def record(event: Iterable[Any]) -> str:
    """The whole event record as text with every bit of every momentum."""
    return "\n".join(
        f"{p.id()} {p.status()} {p.px().hex()} {p.py().hex()} {p.pz().hex()} {p.e().hex()}"
        for p in event
    )


def progress(done: int, total: int) -> None:
    """The pilot shows the last line of `.progress` as the job's fraction."""
    with Path(".progress").open("a") as file:
        file.write(f"{done / total:.3f}\n")


def generate(seed: int, events: int) -> tuple[list[float], str]:
    pythia = importlib.import_module("pythia8mc").Pythia("", False)
    for setting in (*SETTINGS, f"Random:seed = {seed}"):
        if not pythia.readString(setting):
            raise SystemExit(f"pythia does not know the setting {setting!r}")
    if not pythia.init():
        raise SystemExit("pythia could not be initialised")
    digest = hashlib.sha256()
    masses: list[float] = []
    while len(masses) < events:
        if not pythia.next():
            continue
        mass = dimuon_mass(pythia.event)
        digest.update(record(pythia.event).encode())
        if mass is not None:
            masses.append(mass)
            progress(len(masses), events)
    return masses, digest.hexdigest()


def main() -> None:
    parser = argparse.ArgumentParser(description="Z to mu mu at 13 TeV with Pythia 8")
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--events", type=int, default=25)
    parser.add_argument("--pythia", type=Path, default=Path("pythia"), help="the unpacked wheel")
    parser.add_argument("--output", type=Path, default=Path("masses.json"))
    args = parser.parse_args()
    find_pythia(args.pythia.absolute())
    masses, digest = generate(args.seed, args.events)
    result = {"seed": args.seed, "masses_gev": masses, "event_record_sha256": digest}
    args.output.write_text(json.dumps(result) + "\n")
    print(f"seed {args.seed}: {len(masses)} events, mean mass {sum(masses) / len(masses):.2f} GeV")


if __name__ == "__main__":
    main()
