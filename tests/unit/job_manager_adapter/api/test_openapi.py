"""The route table and the document made from it."""

import json
import re
from collections.abc import Iterator
from typing import Any, cast

from aiohttp import web

from job_manager_adapter.api.application import API_ROUTES, add_api
from job_manager_adapter.api.openapi import openapi
from job_manager_adapter.api.route import Doors
from job_manager_adapter.views import Role

DOCUMENT = json.loads(openapi(API_ROUTES, "1.2.3"))


def references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        for part in value.values():
            yield from references(part)
    elif isinstance(value, list):
        for part in value:
            yield from references(part)


def operations() -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, item in DOCUMENT["paths"].items():
        for method, operation in item.items():
            yield method.upper(), path, operation


def test_every_route_says_who_may_use_it() -> None:
    for route in API_ROUTES:
        assert route.roles, f"{route.method} {route.path} is open to everybody"
        assert route.roles <= set(Role)
        assert Role.OPERATOR in route.roles


def test_only_the_description_itself_is_open() -> None:
    application = web.Application()
    add_api(application, Doors(cast("Any", None), cast("Any", None), (), "", "1"))
    served = {(route.method, route.resource.canonical) for route in application.router.routes()}  # type: ignore[union-attr]
    declared = {(r.method, re.sub(r":[^}]*", "", r.path)) for r in API_ROUTES}
    assert served - declared == {("GET", "/api/openapi.json")}
    assert declared <= served


def test_every_route_is_described_and_nothing_else() -> None:
    declared = {(r.method, re.sub(r":[^}]*", "", r.path)) for r in API_ROUTES}
    assert {(method, path) for method, path, _ in operations()} == declared
    assert len(declared) == len(API_ROUTES)


def test_operation_ids_are_unique() -> None:
    ids = [operation["operationId"] for _, _, operation in operations()]
    assert len(ids) == len(set(ids))


def test_every_reference_leads_somewhere() -> None:
    schemas = DOCUMENT["components"]["schemas"]
    found = set(references(DOCUMENT))
    assert found
    for reference in found:
        assert reference.removeprefix("#/components/schemas/") in schemas


def test_path_parameters_are_declared_with_their_bounds() -> None:
    for _, path, operation in operations():
        named = set(re.findall(r"{(\w+)}", path))
        given = {p["name"]: p for p in operation["parameters"] if p["in"] == "path"}
        assert set(given) == named
        assert all("pattern" in parameter["schema"] for parameter in given.values())


def test_every_operation_can_fail_with_a_problem() -> None:
    for _, _, operation in operations():
        content = operation["responses"]["default"]["content"]
        assert content == {
            "application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}
        }


def test_what_people_write_has_no_unknown_fields() -> None:
    submit = DOCUMENT["paths"]["/api/v1/jobs"]["post"]["requestBody"]["content"]
    name = submit["application/json"]["schema"]["$ref"].rpartition("/")[2]
    assert DOCUMENT["components"]["schemas"][name]["additionalProperties"] is False
