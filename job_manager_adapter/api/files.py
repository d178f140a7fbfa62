"""Routes of users' files."""

from aiohttp import web

from job_manager_adapter.api.body import paced
from job_manager_adapter.api.download import send_file
from job_manager_adapter.api.route import ALL_ROLES, Call, Route
from job_manager_adapter.api.upload import HEADERS, read_headers, state_response, stored_response


async def head(call: Call[None, None]) -> web.StreamResponse:
    return state_response(call.doors.files.file_state(call.owner, call.path["sha256"]))


async def put(call: Call[None, None]) -> web.StreamResponse:
    sha256 = call.path["sha256"]
    part = read_headers(call.request, sha256)
    here = await call.doors.files.put_file(
        call.owner, sha256, part.offset, part.length, paced(call.request)
    )
    return stored_response(here, part)


async def get(call: Call[None, None]) -> web.StreamResponse:
    sha256 = call.path["sha256"]
    return send_file(call.doors.files.blob_path(sha256, call.owner), sha256, sha256)


_PATH = "/api/v1/files/{sha256}"
_STORED = {204: "Stored; more is due", 409: "Go on at the header Upload-Offset"}

ROUTES = (
    Route("HEAD", _PATH, head, "How much of a file is stored", ALL_ROLES),
    Route(
        "PUT", _PATH, put, "Upload a file or the rest of it", ALL_ROLES,
        status=201, statuses=_STORED, headers=HEADERS,
    ),
    Route("GET", _PATH, get, "Download a file", ALL_ROLES, statuses={206: "A range of it"}),
)  # fmt: skip
