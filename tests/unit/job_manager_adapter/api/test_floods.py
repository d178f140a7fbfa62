"""A body full of mistakes costs no more than a good one: few messages, whatever it holds."""

import pytest
from pydantic import BaseModel, ValidationError

from copilot_agent.protocol.enrolment import EnrolRequest
from copilot_agent.protocol.frames import PilotFrame
from job_manager_adapter.views import JobSelection, SubmitRequest

MANY = 50_000
ZEROS = b",".join([b"0"] * MANY)
FIELDS = b",".join(b'"%x-":0' % number for number in range(MANY))
SAME = b",".join([b'"a":0'] * MANY)


@pytest.mark.parametrize(
    ("model", "body"),
    [
        (SubmitRequest, b'{"jobs":[%s]}' % ZEROS),
        (SubmitRequest, b'{"jobs":[{%s}]}' % FIELDS),
        (SubmitRequest, b'{"jobs":[{%s}]}' % SAME),
        (SubmitRequest, b'{"jobs":[{"environment":{%s}}]}' % FIELDS),
        (SubmitRequest, b'{"jobs":[{"labels":{%s}}]}' % FIELDS),
        (SubmitRequest, b'{"jobs":[{"inputs":[%s]}]}' % ZEROS),
        (SubmitRequest, b'{"jobs":[{"inputs":[{%s}]}]}' % FIELDS),
        (SubmitRequest, b'{"jobs":[%s]}' % b",".join([b'{"a":0,"b":0}'] * MANY)),
        (SubmitRequest, b"{%s}" % FIELDS),
        (JobSelection, b'{"jobs":[%s]}' % ZEROS),
        (PilotFrame, b'{"wants":{},"holding":[%s]}' % ZEROS),
        (PilotFrame, b'{"wants":{},"reports":[{"outputs":[%s]}]}' % ZEROS),
        (EnrolRequest, b'{"capabilities":{"cpu_flags":[%s]}}' % ZEROS),
    ],
)
def test_few_messages(model: type[BaseModel], body: bytes) -> None:
    with pytest.raises(ValidationError) as caught:
        model.model_validate_json(body)
    assert caught.value.error_count() < 100


def test_a_job_with_as_much_as_is_allowed_passes() -> None:
    job = {
        "experiment": "lhc",
        "command": ["x"] * 256,
        "environment": {f"V{number}": "1" for number in range(128)},
        "labels": {f"l{number}": "1" for number in range(32)},
        "inputs": [{"name": f"i{n}", "sha256": "0" * 64, "size": 1} for n in range(256)],
        "outputs": [{"name": f"o{n}", "optional": True} for n in range(256)],
    }
    request = SubmitRequest.model_validate({"jobs": [job] * 10})
    assert len(request.jobs[9].inputs) == 256
