"""What `make bench` promises whatever is measured: its files, its exit codes, nothing left over."""

import asyncio
import json
import os
import signal
import sys
from pathlib import Path

import pytest

from tests.bench import __main__ as command
from tests.bench import plots, results, run, summary
from tests.bench.frame import Bench, benches
from tests.bench.results import Result, at_least, at_most
from tests.harness.programs import alive, eventually

FIELDS = ["name", "value", "unit", "target", "peer", "peer_value", "cpu_us"]
RESULTS = [
    Result("cycles", 6100.5, "/s", at_least(5000), "procrastinate", 300.0, 150.0),
    Result("cycles.single", 900.0, "/s", at_least(1000)),
    Result("latency.p50", 1.5, "ms", at_most(2)),
    Result("peers.procrastinate", 310.0, "/s", cpu_us=4000.0),
    *(
        Result(f"depth.{waiting}-waiting-1-classes", 1.1, "×", cpu_us=100.0)
        for waiting in (1000, 10000)
    ),
    Result("fleet.64-pilots", 1.0, "×", cpu_us=200.0),
]


def test_results_have_the_promised_form(tmp_path: Path) -> None:
    path = tmp_path / "out" / results.FILE
    results.write(path, RESULTS)
    written = json.loads(path.read_text())
    assert [list(each) for each in written] == [FIELDS] * len(RESULTS)
    assert written[0] == {
        "name": "cycles",
        "value": 6100.5,
        "unit": "/s",
        "target": {"min": 5000},
        "peer": "procrastinate",
        "peer_value": 300.0,
        "cpu_us": 150.0,
    }
    assert written[2]["target"] == {"max": 2}
    assert written[3]["target"] is None
    assert results.read(path) == RESULTS
    assert list(path.parent.iterdir()) == [path]


def test_a_bench_that_runs_again_replaces_its_own_figures_only() -> None:
    new = [Result("cycles.window-8", 1.0, "/s"), Result("cycles", 2.0, "/s")]
    merged = results.merge([*RESULTS, Result("cyclesque", 1.0, "/s")], new, ["cycles"])
    assert [each.name for each in merged if each.name.startswith("cycles")] == [
        "cyclesque",
        "cycles.window-8",
        "cycles",
    ]
    assert [each for each in RESULTS if not each.name.startswith("cycles")] == merged[:5]


def test_a_target_is_a_least_or_a_most() -> None:
    assert [each.met for each in RESULTS[:4]] == [True, False, True, None]
    with pytest.raises(ValueError, match="x: a target is"):
        Result("x", 1.0, "/s", {"about": 1.0})


def test_the_table_shows_what_was_missed() -> None:
    lines = summary.table(RESULTS).splitlines()
    assert "MISSED" not in lines[1]
    assert "MISSED" in lines[2]
    assert "300: procrastinate" in lines[1]


def test_table_and_plots_go_into_the_document_and_replace_the_older_ones(tmp_path: Path) -> None:
    document = tmp_path / "measurements.md"
    document.write_text(f"before\n\n{summary.BEGIN}\nold\n{summary.END}\n\nafter\n")
    for _ in range(2):
        summary.write_documents(RESULTS, document)
    text = document.read_text()
    assert text.startswith("before\n")
    assert text.endswith("\nafter\n")
    assert "old" not in text
    assert text.count("| cycles | 6,100 /s | ≥ 5,000 | met | 300: procrastinate |") == 1
    for name in plots.DRAWN:
        assert f"](img/{name}.svg)" in text
        assert (tmp_path / "img" / f"{name}.svg").stat().st_size < 50_000


def test_the_repository_s_document_has_its_place_for_the_table() -> None:
    text = summary.DOCUMENT.read_text()
    assert text.index(summary.BEGIN) < text.index(summary.END)


def test_an_unknown_bench_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--only", "cycels"]) == 64
    assert "no bench called 'cycels'; there are" in capsys.readouterr().err


def test_every_bench_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--list"]) == 0
    said = capsys.readouterr().out
    assert [each.name for each in benches() if each.name not in said] == []
    assert "cannot be imported" not in said


ALONE = """
import json, pathlib, subprocess, sys, time
name, into = sys.argv[1], pathlib.Path(sys.argv[sys.argv.index("--into") + 1])
if name == "bad":
    print("it broke", flush=True)
    sys.exit(3)
if name == "stuck":
    child = subprocess.Popen(["sleep", "1000"], start_new_session=True)
    (into.parent / "pid").write_text(str(child.pid))
if name in ("stuck", "slow"):
    (into.parent / "begun").touch()
    time.sleep(1000)
found = {"name": name, "value": 5.0, "unit": "/s", "target": {"min": 9}}
into.write_text(json.dumps([found]))
"""
"""A program in the place of `tests.bench.alone`."""


@pytest.fixture(autouse=True)
def scripted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "PROGRAM", ("-c", ALONE))


def bench(name: str, seconds: float = 30.0) -> Bench:
    async def nothing(_: object) -> list[Result]:
        return []

    return Bench(name, f"what {name} measures", seconds, nothing)


async def test_one_that_fails_stops_no_other_and_is_told_at_the_end(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = await command.bench_all([bench("bad"), bench("good")], tmp_path, False, True)
    said = capsys.readouterr()
    assert code == 1
    assert "it broke" in said.out
    assert "failed: bad" in said.err
    assert "MISSED" in said.out
    assert [each.name for each in results.read(tmp_path / results.FILE)] == ["good"]


async def test_a_missed_target_is_no_error(tmp_path: Path) -> None:
    assert await command.bench_all([bench("good")], tmp_path, False, False) == 0


async def test_one_that_hangs_is_stopped_with_all_that_it_started(tmp_path: Path) -> None:
    program = (
        "import asyncio, pathlib\n"
        "from tests.bench import run\n"
        "from tests.unit.bench.test_frame import ALONE, bench\n"
        "run.PROGRAM, run.PATIENCE_SECONDS = ('-c', ALONE), 1.0\n"
        "run.adopt_orphans()\n"
        f"out = pathlib.Path({str(tmp_path)!r})\n"
        "assert not asyncio.run(run.one(bench('stuck', 1.0), out, False))\n"
    )
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", program)
    assert await process.wait() == 0
    assert not alive(int((tmp_path / "pid").read_text()))


async def test_ctrl_c_keeps_what_was_measured(tmp_path: Path) -> None:
    todo = [bench("good"), bench("slow")]
    running = asyncio.create_task(command.bench_all(todo, tmp_path, False, True))
    await eventually((tmp_path / "begun").exists, 10, "the second one")
    os.kill(os.getpid(), signal.SIGINT)
    with pytest.raises(asyncio.CancelledError):
        await running
    assert [each.name for each in results.read(tmp_path / results.FILE)] == ["good"]
