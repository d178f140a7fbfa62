"""`make demo`: an experiment's jobs through the manager, a launcher, a real VM, and back.

`make demo-boinc` is the same with the real BOINC client, which starts the launcher.
"""

import asyncio
import contextlib
import json
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

from rich.text import Text

from copilot_agent.protocol.errors import CopilotError
from copilot_agent.protocol.receipt import Receipt
from deploy.demo import native, physics
from deploy.demo.check import check_command
from deploy.demo.display import Display
from deploy.demo.host import Finished
from deploy.demo.options import Options, parse
from deploy.demo.stage import Stage, stage
from deploy.demo.summary import BoincSummary, Summary, credit_of, summarise
from deploy.demo.sweep import fetch, submit_sweep, watch, wheel
from deploy.demo.vm import facts
from job_manager_adapter.cli.output import complain


async def run(options: Options, display: Display) -> Summary:
    """The whole demo. Raises CopilotError when something goes wrong; leaves nothing running."""
    started = time.monotonic()
    _prepare(options.out)
    with tempfile.TemporaryDirectory(prefix="copilot-demo-") as name:
        work = Path(name)
        async with stage(options, work, display) as running:
            jobs = await submit_sweep(running)
            ended, status = await watch(running, jobs)
            finished = await running.host.finish(len(ended))
            credit = await check_credit(running, finished)
            display.step("the same seed natively")
            seed = 1
            alone = await native.run(wheel(options.cache, "cp311"), seed, options.events, work)
            (options.out / "native.json").write_text(alone.model_dump_json() + "\n")
            display.step("fetching and merging")
            results = await fetch(running, ended)
            carrier = running.display.scene.pilots[0].carrier
        spectrum = physics.merge(list(results.values()))
        physics.draw(spectrum, options.out / "mass.png")
        wall, pair = time.monotonic() - started, (results[seed], alone)
        summary = summarise(ended, spectrum, credit, carrier, facts(status), wall, pair)
        if finished.boinc is not None:
            summary = BoincSummary(**summary.model_dump(), **finished.boinc.model_dump())
        target = options.out / "summary.json"
        target.write_text(json.dumps(summary.model_dump(), indent=2) + "\n")
        return summary


def _prepare(out: Path) -> None:
    out.mkdir(exist_ok=True)
    for old in ("manager.key", "mass.png", "native.json", "receipts.jsonl", "summary.json"):
        (out / old).unlink(missing_ok=True)
    for old_directory in ("outputs", "logs"):
        shutil.rmtree(out / old_directory, ignore_errors=True)
    (out / "logs").mkdir()


async def check_credit(running: Stage, finished: Finished) -> float:
    """Keep the receipts, with the key that verifies them, and recompute their sum.

    Raises CopilotError if the manager, or the BOINC project, says another one.
    """
    ledger = await running.client.credit.total()
    kept = "".join(f"{line}\n" for line in finished.receipts)
    (running.options.out / "receipts.jsonl").write_text(kept)
    (running.options.out / "manager.key").write_text(f"{ledger.manager_key}\n")
    receipts = [Receipt.model_validate_json(line) for line in finished.receipts]
    total = credit_of(receipts, ledger.manager_key)
    if abs(total - ledger.granted) > 1e-9:
        raise CopilotError(f"receipts say {total}, the manager's ledger says {ledger.granted}")
    granted = finished.boinc.boinc_credit_granted if finished.boinc else total
    if abs(total - granted) > 1e-6:
        raise CopilotError(f"receipts say {total}, the BOINC project has granted {granted}")
    return total


def conclude(display: Display, options: Options, summary: Summary) -> None:
    say = display.console.print
    say(Text(f"\n{summary.succeeded} of {summary.jobs} jobs succeeded", style="bold green"))
    mean = f"{summary.mean_mass_gev:.2f} ± {summary.mean_mass_error_gev:.2f} GeV"
    say(Text(f"dimuon mass: {mean} from {summary.events} events"))
    say(Text(f"credit granted: {summary.credit_granted:.4f} ({summary.cpu_seconds:.0f} CPU s)"))
    same = "identical bit by bit" if summary.native_identical else "NOT identical"
    say(Text(f"guest and native results of the same seed: {same}"))
    say(Text(f"pilot and manager talked over {summary.carrier}"))
    if isinstance(summary, BoincSummary):
        _say_boinc(display, summary)
    say(Text(f"VM: {summary.accelerator}, first word after {summary.vm_boot_seconds:.1f} s"))
    say(Text(f"all in all {summary.wall_seconds:.0f} s; everything is in {options.out}"))
    say(Text(f"the receipts can be checked anew:\n{check_command(options.out)}"), soft_wrap=True)


def _say_boinc(display: Display, summary: BoincSummary) -> None:
    display.console.print(
        Text(
            f"BOINC: exit status {summary.boinc_exit_status}, {summary.boinc_cpu_seconds:.0f} CPU s"
            f" in {summary.boinc_elapsed_seconds:.0f} s, {summary.boinc_credit_granted:.4f} granted"
        )
    )


async def main_task(options: Options, display: Display) -> Summary:
    """`run`, cancelled by SIGTERM as by Ctrl-C."""
    task = asyncio.current_task()
    loop = asyncio.get_running_loop()
    if task is not None:
        loop.add_signal_handler(signal.SIGTERM, task.cancel)
    return await run(options, display)


def main() -> int:
    options = parse()
    display = Display(plain=options.plain)
    try:
        with display:
            summary = asyncio.run(main_task(options, display))
    except CopilotError as error:
        complain(error)
        return 1
    except (KeyboardInterrupt, asyncio.CancelledError):
        with contextlib.suppress(OSError):
            sys.stderr.write("interrupted; everything was stopped\n")
        return 130
    conclude(display, options, summary)
    return 0 if as_promised(display, summary) else 1


def as_promised(display: Display, summary: Summary) -> bool:
    """Says what is not as it should be; the jobs themselves have succeeded."""
    faults = []
    if not physics.sits_on_the_peak(summary.mean_mass_gev, summary.mean_mass_error_gev):
        faults.append(f"the mean mass is not on the Z peak at {physics.Z_MASS} GeV")
    if not summary.native_identical:
        faults.append("native.json differs from the guest's result of the same seed in outputs/")
    for fault in faults:
        display.console.print(Text(f"NOT as it should be: {fault}", style="bold red"))
    return not faults


if __name__ == "__main__":
    sys.exit(main())
