"""Commands <-> the values of an <info> element."""

from collections.abc import Mapping
from typing import Annotated

from pydantic import ValidationError

from copilot_agent.protocol.copilot1 import job_commands as job
from copilot_agent.protocol.copilot1 import monitor_commands as monitor
from copilot_agent.protocol.copilot1.errors import refusal_of, refused
from copilot_agent.protocol.copilot1.fields import shaped
from copilot_agent.protocol.copilot1.job_commands import Command
from copilot_agent.protocol.copilot1.tree import Tree, Writable


class UnknownCommand(Command):
    """Of a component that we are not, or of no component at all."""

    command: Annotated[str, shaped(r"[\x21-\x7e]{1,128}", "a word of at most 128 signs")]
    info: Annotated[Tree, Writable()]
    """All of it, the command as well."""


COMMANDS: Mapping[str, type[Command]] = {
    model.model_fields["command"].default: model
    for model in (
        job.WantJob,
        job.HaveJob,
        job.Sleep,
        job.GetJob,
        job.RunJob,
        job.WantOutputDir,
        job.HaveOutputDir,
        job.GetOutputDir,
        job.StoreOutputDir,
        job.JobDone,
        job.Redirect,
        job.ErrorCommand,
        monitor.ReportEvent,
        monitor.ReportEventDuration,
        monitor.ReportEventValue,
        monitor.StoreEventDetails,
        monitor.UpdateEventDetails,
        monitor.Ping,
        monitor.Pong,
        monitor.GetStatus,
        monitor.HaveStatus,
    )
}


def command_of(tree: Tree) -> Command:
    """One of `COMMANDS`, or UnknownCommand. Raises StanzaError, which names the field."""
    name = tree.get("command")
    if not isinstance(name, str):
        raise refused("command", "is missing" if name is None else "must be text")
    try:
        if model := COMMANDS.get(name):
            return model.model_validate(tree, by_alias=True, by_name=False)
        return UnknownCommand(command=name, info=tree)
    except ValidationError as error:
        raise refusal_of(error) from error


def info_of(command: Command) -> Tree:
    """What is unknown is left out, what is empty is written."""
    if isinstance(command, UnknownCommand):
        return dict(command.info)
    return command.model_dump(by_alias=True, exclude_none=True)
