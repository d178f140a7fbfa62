"""OpenAPI 3.1 from the route table and its models."""

import json
import re
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, TypeAdapter
from pydantic.json_schema import JsonSchemaMode, models_json_schema

from copilot_agent.protocol.errors import Problem
from job_manager_adapter.api.route import PARAMETERS, PUBLIC, Route
from job_manager_adapter.views import Event

_REF = "#/components/schemas/{model}"
_PARAMETER = re.compile(r"{(\w+)(?::[^}]*)?}")
Schema = dict[str, Any]


def openapi(routes: Sequence[Route], version: str) -> bytes:
    """The document as JSON."""
    refs, components = _schemas(routes)
    paths: dict[str, Schema] = {}
    for route in routes:
        path = _PARAMETER.sub(r"{\1}", route.path)
        paths.setdefault(path, {})[route.method.lower()] = _operation(route, refs)
    document = {
        "openapi": "3.1.0",
        "info": {
            "title": "Cloud Co-Pilot manager",
            "version": version,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "security": [{"bearer": []}],
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
        },
    }
    return json.dumps(document, sort_keys=False).encode()


Refs = dict[tuple[type[BaseModel], JsonSchemaMode], Schema]


def _schemas(routes: Sequence[Route]) -> tuple[Refs, Schema]:
    bodies: list[tuple[type[BaseModel], JsonSchemaMode]] = [
        (route.body, "validation") for route in routes if route.body
    ]
    replies: list[tuple[type[BaseModel], JsonSchemaMode]] = [
        (route.reply, "serialization") for route in routes if route.reply
    ]
    models = [*bodies, *replies, (Problem, "serialization"), (Event, "serialization")]
    refs, definitions = models_json_schema(list(dict.fromkeys(models)), ref_template=_REF)  # type: ignore[arg-type]
    return refs, definitions["$defs"]  # type: ignore[return-value]


def _operation(route: Route, refs: Refs) -> Schema:
    operation: Schema = {
        "operationId": f"{route.method.lower()}_{_slug(route.path)}",
        "summary": route.summary,
        "tags": [_tag(route.path)],
        "x-roles": sorted(role.value for role in route.roles),
        "parameters": [*_path_parameters(route), *_query_parameters(route), *_headers(route)],
        "responses": _responses(route, refs),
    }
    if route.roles == PUBLIC:
        operation["security"] = []
    if route.body:
        schema = refs[route.body, "validation"]
        operation["requestBody"] = {"required": True, "content": _json(schema)}
    elif route.method == "PUT":
        operation["requestBody"] = {"required": True, "content": _bytes()}
    return operation


def _responses(route: Route, refs: Refs) -> Schema:
    usual: Schema = {"description": route.summary}
    if route.reply:
        usual["content"] = _json(refs[route.reply, "serialization"])
    elif route.method == "GET":
        usual["content"] = _bytes()
    others: Schema = {}
    for status, text in route.statuses.items():
        others[str(status)] = {"description": text}
        if "content" in usual and status < 300:
            others[str(status)]["content"] = usual["content"]
    problem = {
        "description": "What went wrong, and what to do",
        "content": {
            "application/problem+json": {"schema": refs[Problem, "serialization"]},
        },
    }
    return {str(route.status): usual, **others, "default": problem}


def _path_parameters(route: Route) -> list[Schema]:
    return [
        {
            "name": name,
            "in": "path",
            "required": True,
            "schema": TypeAdapter(PARAMETERS[name]).json_schema(),
        }
        for name in _PARAMETER.findall(route.path)
    ]


def _query_parameters(route: Route) -> list[Schema]:
    if route.query is None:
        return []
    schema = route.query.model_json_schema(ref_template=_REF)
    definitions = schema.get("$defs", {})
    return [
        {"name": name, "in": "query", "required": False, "schema": _inline(part, definitions)}
        for name, part in schema["properties"].items()
    ]


def _headers(route: Route) -> list[Schema]:
    return [
        {"name": name, "in": "header", "required": True, "schema": {"type": "string"}}
        for name in route.headers
    ]


def _inline(schema: Any, definitions: Schema) -> Any:
    """The schema with its references replaced by what they refer to."""
    if isinstance(schema, list):
        return [_inline(item, definitions) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        return _inline(definitions[schema["$ref"].rpartition("/")[2]], definitions)
    return {name: _inline(part, definitions) for name, part in schema.items()}


def _json(schema: Schema) -> Schema:
    return {"application/json": {"schema": schema}}


def _bytes() -> Schema:
    return {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}


def _slug(path: str) -> str:
    return re.sub(r"\W+", "_", _PARAMETER.sub(r"\1", path.removeprefix("/api/"))).strip("_")


def _tag(path: str) -> str:
    return path.removeprefix("/api/v1/").split("/")[0].split(".")[0]
