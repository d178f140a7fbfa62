"""What job managers let the agent carry along."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from copilot_agent.protocol.copilot1.errors import StanzaError
from copilot_agent.protocol.copilot1.job_data import JobData, job_data_text, parse_job_data

keys = st.text("abAB01_%", min_size=1, max_size=8)
plain = st.text(st.characters(exclude_characters="#:"), max_size=10)
lists = st.lists(plain, min_size=2, max_size=4).map(tuple)


@given(st.dictionaries(keys, plain | lists, max_size=5))
def test_values_come_back_in_their_order(values: dict[str, str | tuple[str, ...]]) -> None:
    text = job_data_text(JobData(values))
    assert list(parse_job_data(text).values.items()) == list(values.items())


@given(st.text("a=#:\n", max_size=30) | st.text(max_size=30))
def test_any_text_is_given_back_to_the_letter(text: str) -> None:
    assert job_data_text(parse_job_data(text)) == text


def test_the_managers_of_the_original_are_understood() -> None:
    assert parse_job_data("wallTime=0.00####startedAt=1795357554####").values == {
        "wallTime": "0.00",
        "startedAt": "1795357554",
    }
    assert parse_job_data("rss=1::::22####").values == {"rss": ("1", "22")}


def test_a_value_is_added_where_there_is_a_form_for_it() -> None:
    ours = parse_job_data("startedAt=1####").including("wallTime", "0.5")
    assert job_data_text(ours) == "startedAt=1####wallTime=0.5####"
    other = parse_job_data("opaque-1").including("wallTime", "0.5")
    assert job_data_text(other) == "opaque-1"


@pytest.mark.parametrize(
    "values", [{"a": "x####b=y"}, {"a": "x#"}, {"a": "x::::y"}, {"a=b": "c"}, {"a": ("x",)}]
)
def test_values_that_would_be_read_as_others_are_not_written(
    values: dict[str, str | tuple[str, ...]],
) -> None:
    with pytest.raises(StanzaError, match=r"^jmJobData: "):
        job_data_text(JobData(values))
