"""Carries out what the core decides about attempts: staging, payloads, their end."""

import asyncio
import logging
import random
import time
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from copilot_agent.core import effects as do
from copilot_agent.core import events as ev
from copilot_agent.core.cpu_claim import CpuClaim, CpuShare, Reading
from copilot_agent.core.events import Key
from copilot_agent.fresh_links import FreshLinks
from copilot_agent.payload.runner import Payload, PayloadPlan, PayloadStartError, Sandbox
from copilot_agent.payload.staging import StageInError, StageOutError, clean_up
from copilot_agent.protocol.frames import InputLink, Links, Offer, OutputLink
from copilot_agent.protocol.job import FailureClass, JobSpec, Output, Usage
from copilot_agent.transports.base import Moved

log = logging.getLogger(__name__)


class HasUrl(Protocol):
    @property
    def url(self) -> str: ...


ProxyMaker = Callable[[], AbstractAsyncContextManager[HasUrl]]
"""Makes one job's own way out, where a payload has no network of its own."""


class StagesIn(Protocol):
    """See `StageIn`."""

    async def prepare(
        self,
        job: str,
        attempt: int,
        spec: JobSpec,
        inputs: Sequence[InputLink],
        on_progress: Moved | None = None,
        /,
    ) -> Path: ...


class StagesOut(Protocol):
    """See `StageOut`."""

    async def upload(
        self, ended: PayloadPlan, outputs: Sequence[OutputLink], /
    ) -> tuple[Output, ...]: ...


@dataclass
class Place:
    """What an attempt has on this computer."""

    work: asyncio.Task[None] | None = None
    directory: Path | None = None
    plan: PayloadPlan | None = None
    payload: Payload | None = None
    claim: CpuClaim = field(default_factory=CpuClaim)
    kill: do.Kill | None = None
    """Asked for before the payload was there."""
    killer: asyncio.Task[None] | None = None
    moved_bytes: int = 0


class Workshop:
    def __init__(
        self,
        sandbox: Sandbox,
        stage_in: StagesIn,
        stage_out: StagesOut,
        links: FreshLinks,
        post: Callable[[ev.Event], None],
        broken: Callable[[BaseException], None],
        proxy: ProxyMaker | None = None,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._sandbox = sandbox
        self._stages_in = stage_in
        self._stages_out = stage_out
        self._links = links
        self._post = post
        self._broken = broken
        self._proxy = proxy
        self._chance = chance
        self._places: dict[Key, Place] = {}
        self._share = CpuShare()
        self._background: set[asyncio.Task[None]] = set()

    # ----- effects

    def stage_in(self, offer: Offer) -> None:
        key = Key(offer.job, offer.attempt)
        place = self._places.setdefault(key, Place())
        self._links.learn(key, offer)
        place.work = self._spawn(self._stage_in(key, place, offer))

    def start(self, offer: Offer) -> None:
        key = Key(offer.job, offer.attempt)
        place = self._places[key]
        place.work = self._spawn(self._run(key, place, offer))

    def kill(self, effect: do.Kill) -> None:
        place = self._places[effect.key]
        if place.payload is None:
            place.kill = effect
        else:
            place.killer = self._spawn(_kill(place.payload, effect))

    def stage_out(self, offer: Offer) -> None:
        key = Key(offer.job, offer.attempt)
        place = self._places[key]
        place.work = self._spawn(self._stage_out(key, place, offer))

    def stop_staging(self, key: Key) -> None:
        place = self._places.get(key)
        if place is None or place.work is None or place.work.done():
            self._post(ev.StagingStopped(key))
            return
        place.work.cancel()
        place.work.add_done_callback(lambda _: self._post(ev.StagingStopped(key)))

    def clean_up(self, key: Key) -> None:
        place = self._places.pop(key, None)
        self._links.forget(key)
        if place is not None:
            self._spawn(_remove(place))

    def use_links(self, links: Links) -> None:
        self._links.use(links)

    def measure(self) -> ev.Measured:
        samples = []
        for key, place in self._places.items():
            if place.payload is not None:
                samples.append(self._sample(key, place, place.payload))
        return ev.Measured(tuple(samples))

    def host_used(self, reading: Reading | None) -> None:
        """None: the next one cannot be compared with those before."""
        if reading is None:
            self._share.interrupt()
        elif self._share.read(reading):
            for place in self._places.values():
                if place.payload is not None:
                    place.claim.settle(place.payload.usage().cpu_seconds, self._share.part)

    async def close(self) -> None:
        """Kills what runs and waits until it is gone."""
        for place in self._places.values():
            if place.work is not None and place.payload is None:
                place.work.cancel()
        payloads = [place.payload for place in self._places.values() if place.payload]
        end = "the agent ends"
        await asyncio.gather(
            *(each.kill(FailureClass.HOST, end, grace_seconds=0.0) for each in payloads)
        )
        await asyncio.gather(*(_remove(place) for place in self._places.values()))
        if self._background:
            await asyncio.wait(set(self._background))

    # ----- how

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._background.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._broken(error)

    async def _stage_in(self, key: Key, place: Place, offer: Offer) -> None:
        begin = time.monotonic()

        def moved(more: int) -> None:
            place.moved_bytes += more

        try:
            place.directory = await self._stages_in.prepare(*key, offer.spec, offer.inputs, moved)
        except StageInError as error:
            self._post(ev.StageInFailed(key, error.message, error.retryable, self._chance()))
        except OSError as error:
            self._post(ev.StageInFailed(key, f"this host's disk: {error}", retryable=False))
        else:
            self._post(ev.StagedIn(key, time.monotonic() - begin, place.moved_bytes))

    async def _run(self, key: Key, place: Place, offer: Offer) -> None:
        if place.directory is None:
            raise AssertionError(f"{key}: started before it was staged in")
        async with AsyncExitStack() as stack:
            proxy = None
            if offer.spec.network and self._proxy is not None:
                proxy = (await stack.enter_async_context(self._proxy())).url
            place.plan = _plan(key, offer, place.directory, proxy)
            await self._run_plan(key, place, place.plan)

    async def _run_plan(self, key: Key, place: Place, plan: PayloadPlan) -> None:
        try:
            payload = await self._sandbox.start(plan)
        except PayloadStartError as error:
            self._post(_never_ran(key, error.failure_class, error.message))
            return
        place.payload = payload
        self._post(ev.PayloadStarted(key, payload.started_at))
        if place.kill is not None:
            self.kill(place.kill)
        end = await payload.wait()
        place.payload = None
        usage = self._claimed(place, end.usage)
        self._post(
            ev.PayloadEnded(key, end.exit_code, end.signal, end.failure_class, end.message, usage)
        )

    def _sample(self, key: Key, place: Place, payload: Payload) -> ev.Sample:
        usage = self._claimed(place, payload.usage())
        return ev.Sample(key, usage, payload.fraction(), payload.log_tail())

    def _claimed(self, place: Place, usage: Usage) -> Usage:
        """With the CPU time that the host really gave."""
        claimed = place.claim.so_far(usage.cpu_seconds, self._share.part)
        return usage.model_copy(update={"cpu_seconds": claimed})

    async def _stage_out(self, key: Key, place: Place, offer: Offer) -> None:
        begin = time.monotonic()
        if place.plan is None:
            raise AssertionError(f"{key}: staged out before it ran")
        try:
            outputs = await self._stages_out.upload(place.plan, offer.outputs)
        except StageOutError as error:
            self._post(
                ev.StageOutFailed(
                    key, error.failure_class, error.message, error.retryable, self._chance()
                )
            )
        except OSError as error:
            text = f"this host's disk: {error}"
            self._post(ev.StageOutFailed(key, FailureClass.HOST, text, retryable=False))
        else:
            self._post(ev.StagedOut(key, outputs, time.monotonic() - begin))


def _plan(key: Key, offer: Offer, directory: Path, proxy: str | None) -> PayloadPlan:
    """The logs lie beside the payload's directory, where it cannot reach them."""
    return PayloadPlan(
        job=key.job,
        attempt=key.attempt,
        spec=offer.spec,
        directory=directory,
        stdout=directory.with_name(f"{directory.name}.stdout"),
        stderr=directory.with_name(f"{directory.name}.stderr"),
        proxy=proxy,
    )


def _never_ran(key: Key, failure_class: FailureClass, message: str) -> ev.PayloadEnded:
    return ev.PayloadEnded(key, None, None, failure_class, message, Usage())


async def _kill(payload: Payload, effect: do.Kill) -> None:
    await payload.kill(effect.failure_class, effect.message, grace_seconds=effect.grace_seconds)


async def _remove(place: Place) -> None:
    if place.killer is not None:
        await place.killer
    if place.plan is not None:
        place.plan.stdout.unlink(missing_ok=True)
        place.plan.stderr.unlink(missing_ok=True)
    if place.directory is not None:
        await clean_up(place.directory)
