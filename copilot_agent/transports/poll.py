"""Long polls: each frame is a POST, and one POST always waits for what the manager has to say."""

import asyncio
from collections.abc import AsyncIterator

import aiohttp

from copilot_agent.core.events import TransportTrouble
from copilot_agent.protocol.errors import ErrorCode
from copilot_agent.protocol.frames import MAX_FRAME_BYTES, ManagerFrame, PilotFrame
from copilot_agent.transports.base import TransportError
from copilot_agent.transports.connections import RefusedError, read_bounded, refusal, wait_seconds
from copilot_agent.transports.enrolment import describe
from copilot_agent.transports.parsing import frame_text, parse_frame

WAIT_SECONDS = 25
ANSWER_SECONDS = 45.0
WRITE_SECONDS = 20.0


class PollTransport:
    def __init__(self, session: aiohttp.ClientSession, manager: str) -> None:
        self._session = session
        self._url = manager.rstrip("/") + "/pilot/v1/frames"
        self._token = ""
        self._answers: asyncio.Queue[ManagerFrame | TransportError | None] = asyncio.Queue()
        self._posts: set[asyncio.Task[None]] = set()
        self._last: PilotFrame | None = None
        self._session_number: int | None = None

    async def connect(self, token: str) -> None:
        """Says nothing yet: the first frame attaches."""
        await self.close()
        self._token = token
        self._answers = asyncio.Queue()
        self._last = self._session_number = None

    async def send(self, frame: PilotFrame) -> None:
        """Returns when the body is written. A poll that waits is ended by this one."""
        self._last = frame
        written = asyncio.Event()
        post = asyncio.create_task(self._post(frame, written, self._answers))
        self._posts.add(post)
        post.add_done_callback(self._done)
        waiter = asyncio.create_task(written.wait())
        await asyncio.wait({post, waiter}, timeout=WRITE_SECONDS, return_when="FIRST_COMPLETED")
        waiter.cancel()

    async def frames(self) -> AsyncIterator[ManagerFrame]:
        answers = self._answers
        while (answer := await answers.get()) is not None:
            if isinstance(answer, TransportError):
                raise answer
            self._session_number = answer.session
            self._wait_again()
            yield answer

    def use_token(self, token: str) -> None:
        self._token = token

    async def close(self) -> None:
        posts = list(self._posts)
        for post in posts:
            post.cancel()
        await asyncio.gather(*posts, return_exceptions=True)
        self._answers.put_nowait(None)

    def _done(self, post: asyncio.Task[None]) -> None:
        self._posts.discard(post)

    def _wait_again(self) -> None:
        """Keeps one poll waiting, with nothing in it that was said already."""
        if self._posts or self._last is None:
            return
        idle = PilotFrame(
            session=self._session_number,
            sequence=self._last.sequence,
            wants=self._last.wants,
            holding=self._last.holding,
            paused=self._last.paused,
            draining=self._last.draining,
            leaving=self._last.leaving,
        )
        post = asyncio.create_task(self._post(idle, asyncio.Event(), self._answers))
        self._posts.add(post)
        post.add_done_callback(self._done)

    async def _post(
        self,
        frame: PilotFrame,
        written: asyncio.Event,
        answers: asyncio.Queue[ManagerFrame | TransportError | None],
    ) -> None:
        try:
            answer = await self._exchange(frame, written)
        except TransportError as error:
            answers.put_nowait(error)
            return
        if (this := asyncio.current_task()) is not None:
            self._posts.discard(this)
        if answer is not None:
            answers.put_nowait(answer)
        elif not self._posts:
            self._wait_again()

    async def _exchange(self, frame: PilotFrame, written: asyncio.Event) -> ManagerFrame | None:
        body = frame_text(frame).encode()

        async def send() -> AsyncIterator[bytes]:
            yield body
            written.set()

        headers = {
            "Authorization": f"Bearer {self._token}",
            "Content-Type": "application/json",
            "Content-Length": str(len(body)),
        }
        wait = WAIT_SECONDS if frame.session is not None else 0
        try:
            async with self._session.post(
                self._url,
                params={"wait": str(wait)},
                data=send(),
                headers=headers,
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(total=ANSWER_SECONDS),
            ) as response:
                if response.status == 204:
                    return None
                if response.status != 200:
                    raise await refusal(response)
                return parse_frame(await read_bounded(response, MAX_FRAME_BYTES))
        except RefusedError as error:
            raise TransportError(
                _trouble(error), str(error), wait_seconds=wait_seconds(error.headers)
            ) from error
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise TransportError(TransportTrouble.UNREACHABLE, describe(error)) from error


def _trouble(error: RefusedError) -> TransportTrouble:
    problem = error.problem
    if problem.code in (ErrorCode.PILOT_RETIRED, ErrorCode.HOST_BANNED):
        return TransportTrouble.RETIRED
    if problem.status == 401:
        return TransportTrouble.TOKEN
    if problem.status == 409:
        return TransportTrouble.SUPERSEDED
    if problem.status in (400, 413, 422):
        return TransportTrouble.MALFORMED
    return TransportTrouble.UNREACHABLE
