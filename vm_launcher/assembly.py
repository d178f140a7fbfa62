"""Puts the launcher together: from the owner's settings to a VM that is ready to boot."""

import asyncio
import logging
import os
import random
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from copilot_agent.protocol.errors import CopilotError, ErrorCode
from copilot_agent.protocol.guest import Welcome
from vm_launcher.core.credit import CreditBook
from vm_launcher.core.states import Rules
from vm_launcher.drivers.accelerator import Choice, choose, probe_kvm
from vm_launcher.drivers.base import Disk, Fingerprint, VmSpec
from vm_launcher.drivers.registry import load_driver
from vm_launcher.egress import AllowList, Egress, Entry
from vm_launcher.host_words import Voice
from vm_launcher.identity import Identity, read_secret
from vm_launcher.images import Image, load_image, read_public_key
from vm_launcher.receipts import ReceiptFile
from vm_launcher.report import Reporter
from vm_launcher.runtime import Launcher, Parts
from vm_launcher.settings import GUEST_MEMORY_MIB, Settings, disk_for_jobs_mib
from vm_launcher.state import StateDirectory, Status

log = logging.getLogger("vm_launcher")


class UnusableHostError(CopilotError):
    """This host cannot run a VM as it is."""

    code = ErrorCode.UNAVAILABLE


class NoHypervisorError(UnusableHostError):
    """The hypervisor is not installed, or too old."""


@dataclass(frozen=True)
class Assembled:
    launcher: Launcher
    reporter: Reporter
    egress: Egress


async def assemble(settings: Settings, state: StateDirectory) -> Assembled:
    """`state` is locked by the caller.

    Raises `CopilotError` (or the image's error) for what is wrong before the first boot.
    """
    secret = read_secret(settings.enrolment_file)
    identity = Identity.load(state.key)
    driver = load_driver(settings.vm.driver)
    hypervisor = await driver.fingerprint()
    if hypervisor.problem:
        raise NoHypervisorError(hypervisor.problem, remedy=hypervisor.remedy)
    accelerator = await asyncio.to_thread(_choose, settings)
    image = await asyncio.to_thread(_load_image, settings, state)
    egress, welcome = _egress(settings, state.read_status()), _welcome(settings, image)
    reporter = Reporter(state, _first_status(settings, hypervisor, accelerator, image))
    reporter.credit(CreditBook(ReceiptFile(state.receipts).load()).totals())
    parts = Parts(
        driver=driver,
        spec=_spec(settings, state, image, accelerator),
        rules=_rules(settings, accelerator),
        voice=Voice(identity, secret, welcome),
        egress=egress,
        state=state,
        reporter=reporter,
        manager_keys=settings.manager_keys,
    )
    return Assembled(Launcher(parts), reporter, egress)


def _choose(settings: Settings) -> Choice:
    vm = settings.vm
    choice = choose(vm.accelerator, vm.allow_emulation, probe_kvm())
    if not choice.accelerators:
        raise UnusableHostError(f"no VM can run here: {choice.reason}", remedy=choice.remedy)
    log.info("accelerator %s: %s", choice.accelerators[0], choice.reason)
    return choice


def _load_image(settings: Settings, state: StateDirectory) -> Image:
    image = load_image(
        settings.image,
        trusted_keys=[read_public_key(settings.image_key)],
        now=datetime.now(UTC),
        state=state.root,
    )
    log.info("image %d verified, sha256 %s", image.manifest.serial, image.sha256)
    return image


def _spec(settings: Settings, state: StateDirectory, image: Image, choice: Choice) -> VmSpec:
    sockets = state.socket_directory()
    disks = (Disk(serial="base", path=image.base), Disk(serial="agent", path=image.agent))
    return VmSpec(
        name="vm",
        directory=state.vm,
        ctrl_socket=sockets / "ctrl",
        net_socket=sockets / "net",
        kernel=image.kernel,
        initrd=image.initrd,
        command_line=image.command_line,
        disks=disks,
        image_sha256=image.sha256,
        cores=settings.vm.cpus,
        memory_mib=settings.vm.memory_mib,
        disk_mib=settings.vm.disk_mib,
        accelerator="kvm" if choice.accelerators[0] == "kvm" else "tcg",
        cpu_percent=settings.vm.cpu_percent,
        nice=settings.vm.nice,
        run_as=settings.vm.run_as,
    )


def _rules(settings: Settings, choice: Choice) -> Rules:
    vm = settings.vm
    return Rules(
        accelerators=choice.accelerators,
        boot_seconds={"kvm": vm.boot_seconds_kvm, "tcg": vm.boot_seconds_tcg},
        restarts=vm.restarts,
        chance=random.random,
    )


def _welcome(settings: Settings, image: Image) -> Welcome:
    return Welcome(
        time=time.time(),
        manager=settings.manager,
        xmpp=settings.xmpp,
        cores=settings.vm.cpus,
        memory_mib=settings.vm.memory_mib - GUEST_MEMORY_MIB,
        disk_mib=disk_for_jobs_mib(settings.vm.disk_mib),
        image=image.sha256,
        window=settings.window,
        ca_certificates=_certificates(settings.ca_file),
    )


def _certificates(path: Path | None) -> str:
    if path is None:
        return ""
    try:
        return path.read_text("ascii")
    except (OSError, UnicodeDecodeError) as error:
        raise UnusableHostError(f"the certificates in {path} cannot be read: {error}") from None


def _egress(settings: Settings, before: Status | None) -> Egress:
    """The guest may reach what the owner has named, and nothing else; `before`: the last run's."""
    network = settings.network
    entries = [
        *(_own(text) for text in (settings.manager, settings.xmpp) if text),
        *(Entry.parse(text) for text in network.allow),
        *(Entry.parse(text, local=True) for text in network.allow_local),
    ]
    egress = Egress(
        AllowList(entries),
        bytes_per_second=network.bytes_per_second,
        bytes_per_day=network.bytes_per_day,
    )
    if before is not None:
        egress.resume_from(before.network)
    return egress


def _own(text: str) -> Entry:
    """The manager, and its XMPP server, may be on this very host."""
    return Entry.parse(text, local=Entry.parse(text).host == "localhost")


def _first_status(
    settings: Settings,
    hypervisor: Fingerprint,
    choice: Choice,
    image: Image,
) -> Status:
    return Status(
        pid=os.getpid(),
        started=time.time(),
        manager=settings.manager,
        driver=hypervisor.driver,
        hypervisor_version=hypervisor.version,
        accelerator=choice.accelerators[0],
        accelerator_reason=choice.reason,
        image_sha256=image.sha256,
        image_serial=image.manifest.serial,
        kernel=_kernel(image),
        cpus=settings.vm.cpus,
        cpu_percent=settings.vm.cpu_percent,
        memory_mib=settings.vm.memory_mib,
        disk_mib=settings.vm.disk_mib,
    )


def _kernel(image: Image) -> str:
    """Name and version of the kernel's package."""
    packages = image.manifest.contents.packages
    found = [f"{one.name} {one.version}" for one in packages if one.name.startswith("linux-image")]
    return found[0] if found else "unknown"
