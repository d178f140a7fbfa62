"""What a route declares, and what its handler gets."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from aiohttp import web
from pydantic import BaseModel, TypeAdapter, ValidationError

from copilot_agent.protocol.base import Sha256
from copilot_agent.protocol.ids import HostId, JobId, PilotId
from copilot_agent.protocol.job import FileName
from job_manager_adapter.api.problems import invalid
from job_manager_adapter.services.build import Services
from job_manager_adapter.services.files import FileService
from job_manager_adapter.services.principals import Principal
from job_manager_adapter.views import Role

OPERATOR = frozenset({Role.OPERATOR})
ALL_ROLES = frozenset(Role)
PUBLIC: frozenset[Role] = frozenset()
"""Without a token; every route says so itself."""

PARAMETERS: Mapping[str, Any] = {
    "job": JobId,
    "pilot": PilotId,
    "host": HostId,
    "sha256": Sha256,
    "name": FileName,
}
_ADAPTERS: Mapping[str, TypeAdapter[str]] = {
    name: TypeAdapter(kind) for name, kind in PARAMETERS.items()
}

Body = TypeVar("Body", bound=BaseModel | None)
Query = TypeVar("Query", bound=BaseModel | None)


@dataclass(frozen=True)
class Doors:
    """What handlers may use."""

    services: Services
    files: FileService
    experiments: tuple[str, ...]
    manager_key: str
    version: str
    max_body: int = 8 << 20
    streams: "set[asyncio.Task[Any]]" = field(default_factory=set)
    """Requests that never end by themselves; a stop cancels them."""


@dataclass(frozen=True)
class Call(Generic[Body, Query]):
    """One request that has passed its checks."""

    request: web.Request
    doors: Doors
    principal: Principal
    path: Mapping[str, str]
    body: Body
    query: Query

    @property
    def services(self) -> Services:
        return self.doors.services

    @property
    def owner(self) -> str:
        """The caller as an owner of files."""
        return self.principal.experiment or ""


@dataclass(frozen=True)
class Reply:
    """A body with another status than the route's usual one."""

    body: BaseModel
    status: int


Result = BaseModel | Reply | web.StreamResponse
Handler = Callable[[Call[Any, Any]], Awaitable[Result]]


@dataclass(frozen=True)
class Route:
    """A line of the route table. Without `roles` there is no route: deny by default."""

    method: str
    path: str
    handler: Handler
    summary: str
    roles: frozenset[Role]
    body: type[BaseModel] | None = None
    query: type[BaseModel] | None = None
    reply: type[BaseModel] | None = None
    status: int = 200
    statuses: Mapping[int, str] = field(default_factory=dict)
    """Further statuses than the usual one, and what they mean."""
    headers: tuple[str, ...] = ()
    """Request headers that must be there."""


def path_values(request: web.Request) -> dict[str, str]:
    """The path's parts, checked. Raises `CopilotError` that names the wrong one."""
    return {name: check_value(name, value) for name, value in request.match_info.items()}


def check_value(name: str, value: str) -> str:
    try:
        return _ADAPTERS[name].validate_python(value)
    except ValidationError as error:
        raise invalid(error, prefix=name) from error


def query_values(request: web.Request, model: type[BaseModel]) -> BaseModel:
    """The query as a model; a field that is a tuple may come several times."""
    values: dict[str, object] = {}
    for name in request.query:
        several = name in model.model_fields and _takes_several(model, name)
        values[name] = request.query.getall(name) if several else request.query[name]
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise invalid(error) from error


def _takes_several(model: type[BaseModel], name: str) -> bool:
    return isinstance(model.model_fields[name].default, tuple)
