"""From fetched outputs to one histogram, a plot and a mean."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field

from copilot_agent.protocol.base import Sha256, Strict

LOW, HIGH, BINS = 66.0, 116.0, 50
"""The histogram's range in GeV; the generator makes nothing outside."""
Z_MASS = 91.19


class Masses(Strict):
    """What one payload wrote."""

    seed: int
    masses_gev: Annotated[tuple[float, ...], Field(min_length=1, max_length=1_000_000)]
    event_record_sha256: Sha256


@dataclass(frozen=True)
class Spectrum:
    """All events together."""

    masses: tuple[float, ...]

    @property
    def mean(self) -> float:
        return math.fsum(self.masses) / len(self.masses)

    @property
    def mean_error(self) -> float:
        """Standard error of the mean."""
        if len(self.masses) < 2:
            return math.inf
        squares = math.fsum((mass - self.mean) ** 2 for mass in self.masses)
        return math.sqrt(squares / (len(self.masses) - 1) / len(self.masses))

    def histogram(self) -> list[int]:
        counts = [0] * BINS
        for mass in self.masses:
            if LOW <= mass < HIGH:
                counts[int((mass - LOW) / (HIGH - LOW) * BINS)] += 1
        return counts


def sits_on_the_peak(mean: float, error: float) -> bool:
    """Whether a mean agrees with the Z mass: within 1.5 GeV, or 5 standard errors of few events."""
    return abs(mean - Z_MASS) < max(1.5, 5 * error)


def read(path: Path) -> Masses:
    return Masses.model_validate_json(path.read_bytes())


def merge(results: Sequence[Masses]) -> Spectrum:
    """Seeds in order, so that the merged spectrum does not depend on who was first."""
    ordered = sorted(results, key=lambda result: result.seed)
    return Spectrum(tuple(mass for result in ordered for mass in result.masses_gev))


def largest_bin_difference(one: Masses, other: Masses) -> int:
    """Largest difference in events between the bins of two histograms."""
    pair = (Spectrum(one.masses_gev).histogram(), Spectrum(other.masses_gev).histogram())
    return max(abs(a - b) for a, b in zip(*pair, strict=True))


def draw(spectrum: Spectrum, target: Path) -> None:
    """The dimuon mass as a PNG."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    width = (HIGH - LOW) / BINS
    counts = spectrum.histogram()
    centres = [LOW + (bin_ + 0.5) * width for bin_ in range(BINS)]
    figure, axes = pyplot.subplots(figsize=(8, 5))
    axes.stairs(counts, [LOW + i * width for i in range(BINS + 1)], fill=True, color="#7fb2d9")
    axes.errorbar(centres, counts, yerr=[math.sqrt(n) for n in counts], fmt="none", ecolor="#234")
    axes.axvline(Z_MASS, color="#b03030", linestyle="--", label=f"Z, {Z_MASS} GeV")
    axes.set_xlabel("dimuon mass [GeV]")
    axes.set_ylabel(f"events / {width:.0f} GeV")
    axes.set_title(
        f"Z → μμ at 13 TeV, {len(spectrum.masses)} events computed in a volunteer's VM\n"
        f"mean {spectrum.mean:.2f} ± {spectrum.mean_error:.2f} GeV"
    )
    axes.legend()
    figure.tight_layout()
    figure.savefig(target, dpi=120)
    pyplot.close(figure)
