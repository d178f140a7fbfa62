"""Files of pilots, by signed link; an output is taken only while its attempt is open."""

from collections import deque

from aiohttp import web

from job_manager_adapter.api.body import paced
from job_manager_adapter.api.download import send_file
from job_manager_adapter.api.route import check_value
from job_manager_adapter.api.upload import read_headers, state_response, stored_response
from job_manager_adapter.files.links import READ, WRITE
from job_manager_adapter.services.files import OutputTarget
from job_manager_adapter.transports.http.door import PilotDoor

_OUTPUT = "/files/v1/outputs/{job}/{attempt:[0-9]{1,7}}/{name:.+}"

_LATELY = 200
"""Sent inputs that are remembered: one that is wanted again is worth a place in memory."""


class FileRoutes:
    """`/files/v1`."""

    def __init__(self, door: PilotDoor) -> None:
        self._door = door
        self._lately: deque[str] = deque(maxlen=_LATELY)

    def add_to(self, application: web.Application) -> None:
        router = application.router
        router.add_get("/files/v1/inputs/{sha256}", self.get_input, allow_head=True)
        router.add_head(_OUTPUT, self.head_output)
        router.add_put(_OUTPUT, self.put_output)

    async def get_input(self, request: web.Request) -> web.StreamResponse:
        sha256 = check_value("sha256", request.match_info["sha256"])
        self._door.files.check_link(READ, request.path, dict(request.query))
        path, wanted_again = self._door.files.blob_path(sha256), sha256 in self._lately
        if request.method == "GET":
            self._lately.append(sha256)
            self._door.count_bytes("in", path.stat().st_size)
        return send_file(path, sha256, sha256, wanted_again=wanted_again)

    async def head_output(self, request: web.Request) -> web.StreamResponse:
        return state_response(self._door.files.output_state(self._target(request)))

    async def put_output(self, request: web.Request) -> web.StreamResponse:
        target = self._target(request)
        part = read_headers(request)
        await self._door.pilots.require_open(target.job, target.attempt)
        here = await self._door.files.put_output(
            target, part.offset, part.length, part.sha256, paced(request)
        )
        self._door.count_bytes("out", request.content_length or 0)
        return stored_response(here, part)

    def _target(self, request: web.Request) -> OutputTarget:
        """What the link is for, once its signature has been checked."""
        query = dict(request.query)
        self._door.files.check_link(WRITE, request.path, query)
        return OutputTarget(
            experiment=query["x"],
            job=check_value("job", request.match_info["job"]),
            attempt=int(request.match_info["attempt"]),
            name=check_value("name", request.match_info["name"]),
            max_bytes=int(query["m"]),
        )
