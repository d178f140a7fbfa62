"""What is wrong is said in words, for every field that people write."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import BaseModel, TypeAdapter, ValidationError

from copilot_agent.protocol.ids import JobId
from copilot_agent.protocol.job import JobSpec
from copilot_agent.protocol.words import PATTERNS, allowed, dotted, in_words
from job_manager_adapter.api.application import API_ROUTES
from job_manager_adapter.boinc_project.settings import Settings as CreditSettings
from job_manager_adapter.client.jobfile import JobFile
from job_manager_adapter.settings import Settings as ManagerSettings
from vm_launcher.settings import Settings as LauncherSettings

BODIES = [model for route in API_ROUTES for model in (route.body, route.query) if model]
WRITTEN: list[type[BaseModel]] = [
    *BODIES,
    JobFile,
    CreditSettings,
    ManagerSettings,
    LauncherSettings,
]


def patterns(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("pattern"), str):
            yield value["pattern"]
        yield from value.get("patternProperties", {})
        for part in value.values():
            yield from patterns(part)
    elif isinstance(value, list):
        for part in value:
            yield from patterns(part)


@pytest.mark.parametrize("model", dict.fromkeys(WRITTEN), ids=lambda model: model.__name__)
def test_every_pattern_that_people_meet_has_words(model: type[BaseModel]) -> None:
    without = [one for one in patterns(model.model_json_schema()) if allowed(one) == allowed("?")]
    assert not without


def test_the_words_are_about_patterns_that_exist() -> None:
    known = {one for model in WRITTEN for one in patterns(model.model_json_schema())}
    assert set(PATTERNS) <= known
    assert all(re.compile(one) for one in PATTERNS)


@pytest.mark.parametrize(
    ("fields", "place", "words"),
    [
        ({"outputs": [{"name": "../x"}]}, "outputs[0].name", "a plain relative path such as"),
        ({"labels": {"No": "x"}}, "labels.No", "lower-case letters"),
        ({"requirements": {"cores": 0}}, "requirements.cores", "must be at least 1"),
        ({"max_attempts": 99}, "max_attempts", "must be at most 20"),
        ({"priority": "high"}, "priority", "must be a whole number"),
        ({"experiment": None}, "experiment", "must be text"),
        ({"commnad": []}, "commnad", "no such field"),
        ({"command": "true"}, "command", 'must be a list, such as ["a", "b"]'),
        ({"command": [""]}, "", "command: the program's name is empty"),
    ],
)
def test_fields_are_named_and_what_they_must_be(
    fields: dict[str, object], place: str, words: str
) -> None:
    with pytest.raises(ValidationError) as refused:
        JobSpec.model_validate({"experiment": "demo", "command": ["true"], **fields})
    (error,) = refused.value.errors()
    assert dotted(error["loc"]) == place
    assert words in in_words(error)


def test_ids_are_told_apart() -> None:
    with pytest.raises(ValidationError) as refused:
        TypeAdapter(JobId).validate_python("7")
    assert in_words(refused.value.errors()[0]) == "must be a job's id, as in j-01m83d2mtjecnwwa4kfa"
    assert allowed("^c-[0-9a-hjkmnp-tv-z]{20}$") == "an id, as in c-01m83d2mtjecnwwa4kfa"
