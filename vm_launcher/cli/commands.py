"""`vm-launcher status|pause|resume|save|finish|stop`."""

import argparse
import json
import sys
import time
from pathlib import Path

from vm_launcher import control
from vm_launcher.cli.exits import Exit
from vm_launcher.cli.words import status_lines
from vm_launcher.state import StateDirectory, Status

_COMMAND_SECONDS = 90.0
_WATCH_SECONDS = 1.0

_ASKS = {
    "pause": "pause the VM; its memory stays in use",
    "resume": "let a paused VM go on",
    "save": "save the VM to disk and end the launcher; the next run goes on with it",
    "stop": "stop the VM: running jobs are given back, nothing is left behind",
}


def add_parsers(actions: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    status = actions.add_parser("status", help="what the VM is doing")
    _add_state(status)
    status.add_argument("--output", choices=("text", "json"), default="text")
    status.add_argument("--watch", action="store_true", help="again every second until Ctrl-C")
    status.set_defaults(run=show_status)
    for name, text in _ASKS.items():
        parser = actions.add_parser(name, help=text, description=text)
        _add_state(parser)
        parser.set_defaults(run=ask, command=name)
    text = "let the pilot finish its jobs and take no more, then stop"
    finish = actions.add_parser("finish", help=text, description=text)
    _add_state(finish)
    finish.add_argument("--undo", action="store_true", help="take it back")
    finish.set_defaults(run=ask, command="finish")


def _add_state(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--state", type=Path, required=True, metavar="DIR", help="the launcher's directory"
    )


def ask(parsed: argparse.Namespace) -> Exit:
    command = "undo_finish" if getattr(parsed, "undo", False) else parsed.command
    answer = _ask(parsed.state, command)
    if answer.ok:
        print("it will end when its jobs have" if command == "finish" else answer.message)
        return Exit.OK
    print(f"vm-launcher: {answer.message}", file=sys.stderr)
    return Exit.ERROR


def show_status(parsed: argparse.Namespace) -> Exit:
    shown = ""
    while True:
        status = _status(parsed.state)
        text = _text(status, parsed.output)
        if text != shown:
            print(text, flush=True)
            shown = text
        if not parsed.watch or status.pid == 0:
            return Exit.OK
        time.sleep(_WATCH_SECONDS)


def _text(status: Status, output: str) -> str:
    if output == "json":
        return json.dumps(status.model_dump(mode="json"), indent=1)
    return "\n".join(status_lines(status))


def _status(state: Path) -> Status:
    """Of the running launcher, else what the last one wrote at its end."""
    try:
        answer = _ask(state, "status")
    except control.ControlError:
        last = StateDirectory(state).read_status()
        if last is None:
            raise
        return _without_launcher(last)
    return answer.status or Status()


def _without_launcher(last: Status) -> Status:
    """A launcher that was killed could not say so."""
    ended = last.state in ("saved", "gone")
    state = last.state if ended else "gone"
    message = last.message if ended else "the launcher ended without a word"
    return last.model_copy(update={"pid": 0, "state": state, "message": message})


def _ask(state: Path, command: str) -> control.Answer:
    request = control.Request.model_validate({"command": command})
    return control.ask(StateDirectory(state).control, request, _COMMAND_SECONDS)
