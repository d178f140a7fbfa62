"""The control socket."""

import asyncio
import socket
from pathlib import Path

import pytest

from copilot_agent.protocol.errors import CopilotError
from vm_launcher import control
from vm_launcher.control import Answer, ControlError, Request
from vm_launcher.state import Status


async def handler(request: Request) -> Answer:
    if request.command == "save":
        raise CopilotError("not now", remedy="later")
    return Answer(ok=True, message=request.command, status=Status(state="running"))


async def ask(path: Path, command: str) -> Answer:
    request = Request.model_validate({"command": command})
    return await asyncio.to_thread(control.ask, path, request, 5)


@pytest.mark.parametrize("depth", [0, 150])
async def test_a_question_is_answered_however_deep_the_directory(
    tmp_path: Path, depth: int
) -> None:
    directory = tmp_path / ("d" * depth)
    directory.mkdir(exist_ok=True)
    path = directory / "control.sock"
    async with control.serve(path, handler):
        assert path.stat().st_mode & 0o777 == 0o600
        answer = await ask(path, "pause")
        assert (answer.ok, answer.message) == (True, "pause")
        assert answer.status == Status(state="running")
    assert not path.exists()


async def test_an_error_comes_with_its_remedy(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    async with control.serve(path, handler):
        answer = await ask(path, "save")
    assert (answer.ok, answer.message, answer.remedy) == (False, "not now", "later")


def test_no_launcher_runs(tmp_path: Path) -> None:
    with pytest.raises(ControlError, match="no launcher runs"):
        control.ask(tmp_path / "control.sock", Request(command="status"), 5)


@pytest.mark.parametrize("line", [b"nonsense\n", b'{"command": "format_disk"}\n', b"{}\n"])
async def test_nonsense_is_answered_and_does_no_harm(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "control.sock"
    async with control.serve(path, handler):
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(line)
        assert not Answer.model_validate_json(await reader.readline()).ok
        writer.close()
        await writer.wait_closed()
        assert (await ask(path, "status")).ok


async def test_a_socket_left_by_a_killed_launcher_is_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    left = socket.socket(socket.AF_UNIX)
    left.bind(str(path))
    left.close()
    with pytest.raises(ControlError, match="no launcher runs"):
        await ask(path, "status")
    async with control.serve(path, handler):
        assert (await ask(path, "status")).ok
