"""Beside a recorded original manager, this agent says what the recorded original agent said."""

from collections.abc import Iterator

import pytest

from copilot_agent.core.copilot1 import words as w
from copilot_agent.protocol.copilot1 import job_commands as job
from copilot_agent.protocol.copilot1.commands import info_of
from copilot_agent.protocol.copilot1.envelope import Envelope
from tests.unit.copilot_agent.core.copilot1.scene import Scene
from tests.unit.copilot_agent.protocol.copilot1.recordings import recorded_commands

AGENTS = (job.WantJob, job.GetJob, job.WantOutputDir, job.GetOutputDir, job.JobDone)
Recorded = tuple[Envelope, job.Command]


def cycles() -> Iterator[list[Recorded]]:
    """From an agent's own captures: each from want_getJob over runJob to the next want_getJob."""
    every = recorded_commands()
    for at, (_, command) in enumerate(every):
        if isinstance(command, job.RunJob):
            first = max(i for i in range(at) if isinstance(every[i][1], job.WantJob))
            done = next(i for i in range(at, len(every)) if isinstance(every[i][1], job.JobDone))
            if own(every[first : done + 2]):
                yield every[first : done + 2]


def own(cycle: list[Recorded]) -> bool:
    """Agents write their bare address; where others see it, the server has put in the whole."""
    said = [envelope for envelope, command in cycle if isinstance(command, AGENTS)]
    return len(said) == 6 and all("/" not in envelope.sender for envelope in said)


def shape(command: job.Command) -> list[str]:
    return sorted(info_of(command))


def test_both_generations_were_recorded() -> None:
    """Only the newer one speaks of CPU time."""
    data = [
        command.job_data or ""
        for cycle in cycles()
        for _, command in cycle
        if isinstance(command, job.JobDone)
    ]
    assert {"wallTime" in each for each in data} == {True, False}


@pytest.mark.parametrize("cycle", list(cycles()))
def test_a_recorded_job_goes_the_same_way_with_us(cycle: list[Recorded]) -> None:
    scene = Scene()
    scene.ready()
    for envelope, command in cycle:
        if isinstance(command, AGENTS):
            continue
        scene.hears(envelope.sender, command)
        for taken in scene.all(w.Take):
            validated = taken.command and taken.command.job.validation_script
            status = 1280 if validated else None
            scene.happens(w.PlaceWanted(taken.assignment.key, status))
        for place in scene.all(w.Place):
            scene.happens(w.Ended(place.assignment.key, 0, 0.0), w.Room(free=True))
            scene.happens(w.Acked(envelope.sender, scene.last.id))
    scene.until(61)
    said = [(each.to, shape(each.command)) for _, each in scene.said]
    assert said == [
        (envelope.recipient, shape(command))
        for envelope, command in cycle
        if isinstance(command, AGENTS)
    ]
