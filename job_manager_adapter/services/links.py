"""What services need from the file store; `services.files` implements it."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from copilot_agent.protocol.errors import FieldError
from copilot_agent.protocol.frames import InputLink, OutputLink
from copilot_agent.protocol.job import STDERR, STDOUT, JobSpec, Output


class OutputPlace(NamedTuple):
    """An `OutputLink` that we made ourselves, so that nothing of it has to be checked."""

    name: str
    url: str
    max_bytes: int
    optional: bool


class Links(Protocol):
    def inputs(self, job: str, spec: JobSpec, now: float) -> tuple[InputLink, ...]:
        """Where the pilot gets each input; inputs with a `url` of their own keep it."""

    def outputs(
        self, job: str, attempt: int, spec: JobSpec, now: float
    ) -> Sequence[OutputPlace | OutputLink]:
        """Where the pilot puts each output, stdout and stderr among them."""

    async def outputs_present(self, job: str, attempt: int, outputs: Sequence[Output]) -> list[str]:
        """Names of the outputs that are not stored with this size and hash; empty is good."""

    async def inputs_present(self, experiment: str, spec: JobSpec) -> list[FieldError]:
        """Inputs without `url` that are not complete in the store; fields as `inputs[1].sha256`."""

    async def discard(self, job: str, attempt: int) -> None:
        """Deletes what an attempt has stored; nothing stored is no error."""


def required_outputs(spec: JobSpec) -> tuple[str, ...]:
    """What a success must have stored."""
    return (STDOUT, STDERR, *(file.name for file in spec.outputs if not file.optional))
