"""The page that the volunteer sees."""

import asyncio
from urllib.parse import urlsplit

import pytest

from vm_launcher.boinc.page import served
from vm_launcher.boinc.words import task_lines
from vm_launcher.core.task import Task, TaskRules
from vm_launcher.core.task_progress import Meter, Progress
from vm_launcher.state import Status


async def ask(url: str, head: str) -> str:
    port = urlsplit(url).port
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(head.replace("PORT", str(port)).encode())
    text = await reader.read()
    writer.close()
    return text.decode()


async def test_it_says_what_the_task_does() -> None:
    async with served(lambda: ["Working on a job", "job <b> of a&b"]) as url:
        assert url.startswith("http://localhost:")
        reply = await ask(url, "GET / HTTP/1.1\r\nHost: localhost:PORT\r\n\r\n")
    assert reply.startswith("HTTP/1.1 200 OK\r\n")
    assert "<h1>Working on a job</h1>" in reply
    assert "job &lt;b&gt; of a&amp;b" in reply, "names from outside are text"


@pytest.mark.parametrize(
    "head",
    [
        "GET / HTTP/1.1\r\nHost: evil.example:PORT\r\n\r\n",
        "GET / HTTP/1.1\r\n\r\n",
        "GET /secret HTTP/1.1\r\nHost: localhost:PORT\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: localhost:PORT\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: localhost:PORT\r\nX: " + "x" * 9000 + "\r\n\r\n",
    ],
    ids=["another site's name", "no name", "another path", "another method", "too long"],
)
async def test_nothing_else_is_answered(head: str) -> None:
    async with served(lambda: ["words"]) as url:
        assert "words" not in await ask(url, head)


def words(task: Task, **status: object) -> str:
    return next(iter(task_lines(task, Status.model_validate(status))))


def test_the_headline() -> None:
    task = Task(TaskRules(), Progress(), Meter(0))
    assert words(task, state="booting") == "The virtual machine boots"
    assert words(task, state="running") == "Getting work"
    assert words(task, state="running", jobs_running=2) == "Working on 2 jobs"
    assert words(task, state="running", guest_state="connecting") == "Connecting to the manager"
    task.waiting = "waiting for work, your processor is free"
    assert words(task, state="running") == "Waiting for work, your processor is free"
    task.suspended = True
    assert words(task, state="paused") == "Paused by BOINC"


async def test_others_on_this_computer_do_not_take_all_connections() -> None:
    async with served(lambda: ["words"]) as url, asyncio.timeout(20):
        port = urlsplit(url).port
        many = [await asyncio.open_connection("127.0.0.1", port) for _ in range(40)]
        ends = [asyncio.create_task(reader.read()) for reader, _ in many]
        turned_away = 0
        while turned_away < 24:
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            ended = [end for end in ends if end.done()]
            turned_away += len(ended)
            ends = [end for end in ends if end not in ended]
            for end in ended:
                assert isinstance(end.exception(), ConnectionError) or end.result() == b""
        assert len(ends) == 16
        for _, writer in many:
            writer.close()
        await asyncio.wait(ends)
        reply = await ask(url, "GET / HTTP/1.1\r\nHost: localhost:PORT\r\n\r\n")
        assert "words" in reply
