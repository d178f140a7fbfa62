"""One BOINC task, from its start by the client to its end: the shell around `core.task`."""

import asyncio
import contextlib
import errno
import logging
import math
import os
import signal
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from copilot_agent.protocol.errors import CopilotError
from vm_launcher.assembly import NoHypervisorError, assemble
from vm_launcher.boinc.client import Client
from vm_launcher.boinc.errors import SlotError, SlotLockedError
from vm_launcher.boinc.init_data import InitData
from vm_launcher.boinc.notebook import Notebook
from vm_launcher.boinc.page import served
from vm_launcher.boinc.play import Play
from vm_launcher.boinc.preferences import Bounds, TooLittleMemoryError, bounds
from vm_launcher.boinc.slot import Slot
from vm_launcher.boinc.slot_image import IMAGE_KEY, collect_image
from vm_launcher.boinc.task_settings import TASK_SETTINGS, TaskSettings, load_task_settings
from vm_launcher.boinc.words import task_lines
from vm_launcher.core.task import Task, TaskRules
from vm_launcher.core.task_endings import DAY, HOUR, INIT_FAILURE
from vm_launcher.core.task_events import Ending, Finish, Leave, Postpone
from vm_launcher.core.task_progress import Meter
from vm_launcher.identity import IdentityError
from vm_launcher.images import ImageError
from vm_launcher.settings import NetworkSettings, Settings, SettingsError, VmSettings
from vm_launcher.state import StateDirectory, StateLockedError

log = logging.getLogger("vm_launcher")

ENROLMENT = "enrolment"
"""Logical name of the workunit's input file: one line, the enrolment secret."""

_STATE = "launcher"
_OCCUPIED_SECONDS = 600.0


@dataclass(frozen=True)
class Start:
    """What a task finds when it is started."""

    slot: Slot
    data: InitData
    threads: int | None


async def run(directory: Path, threads: int | None = None) -> int:
    """The exit code for the client; raises `InitDataError` where there is no client."""
    slot = Slot(directory)
    data = slot.init_data()
    _keep_temporary_files_in(slot.directory)
    try:
        await slot.lock()
    except SlotLockedError as error:
        slot.postpone(_OCCUPIED_SECONDS, error.message)
        return 0
    try:
        slot.clear_endings()
        return await _occupied(Start(slot, data, threads))
    finally:
        slot.unlock()


def _keep_temporary_files_in(directory: Path) -> None:
    """Under Debian's service file nothing else is writable; and the client empties the slot."""
    os.environ["TMPDIR"] = tempfile.tempdir = str(directory)


async def _occupied(start: Start) -> int:
    with contextlib.closing(Client.attach(start.slot)) as client:
        state = StateDirectory(start.slot.directory / _STATE)
        try:
            state.lock()
            ending = await _play(start, client, state)
        except (CopilotError, ImageError) as error:
            ending = _refused(error)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            ending = Postpone(HOUR, "the disk of the BOINC client is full", notice=True)
        finally:
            state.unlock()
    return _end(start.slot, ending)


def _refused(error: CopilotError | ImageError) -> Ending:
    """What is wrong before the first boot: with the computer, or with the task."""
    # what is the project's cannot be mended by a volunteer, only be loaded anew
    loaded = isinstance(error, ImageError | IdentityError | SettingsError)
    remedy = "reset the project in the BOINC manager" if loaded else error.remedy
    words = f"{error.message}. Try: {remedy}" if remedy else error.message
    log.error("%s", words)
    match error:
        case NoHypervisorError() | TooLittleMemoryError():
            return Postpone(DAY, words, notice=True)
        case StateLockedError():
            return Postpone(_OCCUPIED_SECONDS, words)
        case _:
            return Finish(INIT_FAILURE, words, notice=True)


def _end(slot: Slot, ending: Ending) -> int:
    match ending:
        case Leave(status):
            log.info("leaving, exit code %d", status)
            return status
        case Postpone(seconds, reason, notice):
            log.info("postponed for %.0f s: %s", seconds, reason)
            try:
                slot.postpone(seconds, reason, notice=notice)
            except SlotError as error:  # no room for that: then the client starts us again at once
                log.error("%s", error.message)
            return 0
        case Finish(status, message, notice):
            log.info("finished, exit code %d %s", status, message)
            try:
                slot.finish(status, message, notice=notice)
            except SlotError as error:  # after 0 the client starts us again, and we finish then
                log.error("%s", error.message)
            return status


async def _play(start: Start, client: Client, state: StateDirectory) -> Ending:
    settings = load_task_settings(start.slot.resolve(TASK_SETTINGS))
    granted = bounds(settings.vm, start.data, start.threads)
    made = await assemble(_owner_settings(start, settings, granted, state), state)
    made.egress.bound(granted.bytes_per_second, granted.bytes_per_day)
    notebook = Notebook(state.root / "progress.json")
    task = _task(start.data, settings, client, notebook, state)
    play = Play(start.slot, start.data, client, task, made, notebook)
    play.bounds = lambda: bounds(settings.vm, start.slot.init_data(), start.threads)
    with _signals(play):
        async with served(lambda: task_lines(task, made.reporter.status)) as url:
            client.offer_page(url)
            return await play.run()


def _task(
    data: InitData,
    settings: TaskSettings,
    client: Client,
    notebook: Notebook,
    state: StateDirectory,
) -> Task:
    times, credit = settings.task, settings.credit
    progress = notebook.read()
    progress.trickled_seconds = _told_before(client.trickle_mark())
    rules = TaskRules(
        task_seconds=times.task_seconds,
        grace_seconds=times.grace_seconds,
        idle_seconds=times.idle_seconds,
        idle_exit_seconds=times.idle_exit_seconds,
        idle_end_seconds=times.idle_end_seconds,
        checkpoint_seconds=data.checkpoint_period,
        trickle_seconds=credit.trickle_seconds if credit.way == "trickles" else None,
    )
    found = state.load_handle()
    if found and found[0].saved:
        used = max(data.wu_cpu_time, progress.saved_cpu_seconds)
        return Task(rules, progress, Meter(used, found[0].cpu_seconds))
    return Task(rules, progress, Meter(data.wu_cpu_time))


def _told_before(mark: str) -> float:
    """CPU seconds that earlier trickles have told; the volunteer can edit the file."""
    try:
        seconds = float(mark or 0.0)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise SlotError(
            f"it is unknown what has been reported by trickles: {mark[:80]!r}",
            remedy="abort this task in the BOINC manager",
        )
    return seconds


def _owner_settings(
    start: Start, settings: TaskSettings, granted: Bounds, state: StateDirectory
) -> Settings:
    slot, vm = start.slot, settings.vm
    certificates = state.root / "ca.pem"
    if settings.ca_certificates:
        certificates.write_text(settings.ca_certificates, "ascii")
    return Settings(
        manager=settings.manager,
        xmpp=settings.xmpp,
        window=settings.window,
        manager_keys=settings.manager_keys,
        image=collect_image(slot, state.root / "image"),
        image_key=slot.resolve(IMAGE_KEY),
        enrolment_file=slot.resolve(ENROLMENT),
        state=state.root,
        ca_file=certificates if settings.ca_certificates else None,
        vm=VmSettings(
            cpus=granted.cpus,
            cpu_percent=granted.cpu_percent,
            memory_mib=granted.memory_mib,
            disk_mib=vm.disk_mib,
            nice=vm.nice,
            accelerator=vm.accelerator,
            allow_emulation=vm.allow_emulation,
            boot_seconds_kvm=vm.boot_seconds_kvm,
            boot_seconds_tcg=vm.boot_seconds_tcg,
            restarts=vm.restarts,
        ),
        network=NetworkSettings(allow=settings.allow, allow_local=settings.allow_local),
    )


@contextlib.contextmanager
def _signals(play: Play) -> Iterator[None]:
    """The computer shuts down: as if the client quit."""
    loop = asyncio.get_running_loop()
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    for number in numbers:
        loop.add_signal_handler(number, play.quit, "the computer shuts down")
    try:
        yield
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)
