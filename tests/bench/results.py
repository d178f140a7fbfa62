"""What the benches find: bench-out/results.json, a list of objects, one per figure."""

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path

FILE = "results.json"


@dataclass(frozen=True)
class Result:
    """One figure, as it stands in results.json."""

    name: str
    """`<bench>` or `<bench>.<what>`, so that running one bench again replaces its own figures."""
    value: float
    unit: str
    """"/s", "ms", "KiB", "MiB/s", "us", "×" (a ratio), "s", "1" (a count)."""
    target: Mapping[str, float] | None = None
    """{"min": n} or {"max": n}; see `at_least`, `at_most`. None: shown for information."""
    peer: str | None = None
    """What stands beside the figure: a peer or a floor measured in the same run."""
    peer_value: float | None = None
    """In the same unit."""
    cpu_us: float | None = None
    """CPU microseconds per operation of all processes of ours, but not of simulated pilots."""

    def __post_init__(self) -> None:
        if self.target is not None and set(self.target) not in ({"min"}, {"max"}):
            raise ValueError(f'{self.name}: a target is {{"min": n}} or {{"max": n}}')

    @property
    def met(self) -> bool | None:
        """Whether the target is met; None without one."""
        match self.target:
            case {"min": least}:
                return self.value >= least
            case {"max": most}:
                return self.value <= most
        return None


def at_least(number: float) -> dict[str, float]:
    return {"min": number}


def at_most(number: float) -> dict[str, float]:
    return {"max": number}


def belongs(name: str, bench: str) -> bool:
    """Whether a result of this name is one of that bench."""
    return name == bench or name.startswith(f"{bench}.")


def read(path: Path) -> list[Result]:
    """The results of a file; none if it is not there."""
    try:
        found = json.loads(path.read_bytes())
    except FileNotFoundError:
        return []
    return [Result(**each) for each in found]


def write(path: Path, results: Iterable[Result]) -> None:
    """Replaces the file in one step."""
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = [{field.name: asdict(each)[field.name] for field in fields(each)} for each in results]
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(json.dumps(whole, indent=2, ensure_ascii=False) + "\n")
    temporary.replace(path)


def merge(old: Iterable[Result], new: Iterable[Result], benches: Iterable[str]) -> list[Result]:
    """`old` with all figures of `benches` replaced by `new`."""
    names = tuple(benches)
    kept = [each for each in old if not any(belongs(each.name, name) for name in names)]
    return [*kept, *new]
