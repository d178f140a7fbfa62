"""Errors as people get them."""

import pytest
from pydantic import ValidationError

from copilot_agent.protocol.errors import CopilotError, ErrorCode, Problem
from job_manager_adapter.api.problems import (
    STATUS,
    field_errors,
    invalid,
    printable,
    problem_response,
)
from job_manager_adapter.views import SubmitRequest


def refused(content: object) -> ValidationError:
    with pytest.raises(ValidationError) as caught:
        SubmitRequest.model_validate(content)
    return caught.value


def test_every_code_has_a_status() -> None:
    assert set(STATUS) == set(ErrorCode)


def test_a_field_is_named_as_one_would_write_it() -> None:
    job = {"experiment": "demo", "command": ["x"], "inputs": [{"name": "a", "size": -1}]}
    fields = {item.field for item in field_errors(refused({"jobs": [job]}))}
    assert fields == {"jobs[0].inputs[0].sha256", "jobs[0].inputs[0].size"}


def test_what_came_is_not_repeated() -> None:
    job = {"experiment": "demo", "command": ["x"], "name": "\x1b[31mcanary"}
    problem = invalid(refused({"jobs": [job]}))
    text = problem_response(problem).body
    assert isinstance(text, bytes)
    assert b"canary" not in text


def test_hostile_field_names_are_made_visible() -> None:
    job = {"experiment": "demo", "command": ["x"], "a\nb\u202e" + "c" * 9000: 1}
    [item] = field_errors(refused({"jobs": [job]}))
    assert item.field.isprintable()
    assert len(item.field) < 200


def test_a_thousand_mistakes_give_a_bounded_answer() -> None:
    problem = invalid(refused({"jobs": [{f"x{number}": 0 for number in range(1000)}]}))
    assert len(problem.errors) == 100
    body = problem_response(problem).body
    assert isinstance(body, bytes)
    assert Problem.model_validate_json(body).code == "invalid_request"


def test_printable_bounds_and_escapes() -> None:
    assert printable("a\x00b", 100) == "a\\u0000b"
    assert len(printable("\x00" * 1000, 100)) == 100


def test_unavailable_says_when_to_come_back() -> None:
    response = problem_response(CopilotError("busy", code=ErrorCode.UNAVAILABLE))
    assert (response.status, "Retry-After" in response.headers) == (503, True)
