"""The ledger by what labels say."""

from datetime import UTC, datetime

import pytest

from job_manager_adapter.client.credit_groups import By, group_rows, label_words
from job_manager_adapter.views import EnrolmentCreditView
from tests.harness.stores import ident


def row(number: int, label: str, granted: float = 1.0, **fields: object) -> EnrolmentCreditView:
    at = datetime.fromtimestamp(number, UTC)
    values = {
        "enrolment": ident("e", number),
        "experiment": "demo",
        "label": label,
        "granted": granted,
        "cpu_seconds": 432.0,
        "receipts": 1,
        "first_accepted_at": at,
        "last_accepted_at": at,
    }
    return EnrolmentCreditView.model_validate(values | fields)


ROWS = [
    row(1, "host=17 user=4 team=2"),
    row(2, "host=18,user=4,team=2", 3.0),
    row(3, "wu of May, user=5"),
    row(3, "wu of May, user=5", experiment="other"),
    row(4, ""),
]


@pytest.mark.parametrize(
    ("by", "groups"),
    [
        ("user", {"user=4": 4.0, "user=5": 2.0, ident("e", 4): 1.0}),
        ("team", {"team=2": 4.0, "wu of May, user=5": 2.0, ident("e", 4): 1.0}),
        ("experiment", {"demo": 6.0, "other": 1.0}),
        ("enrolment", {ident("e", 2): 3.0, ident("e", 3): 2.0, ident("e", 1): 1.0,
                       ident("e", 4): 1.0}),
    ],
)  # fmt: skip
def test_groups_come_with_their_sums_and_the_largest_first(
    by: By, groups: dict[str, float]
) -> None:
    found = group_rows(ROWS, by)
    assert [(group.group, group.granted) for group in found] == list(groups.items())


def test_a_group_counts_enrolments_once_and_spans_its_rows() -> None:
    (group,) = group_rows(ROWS[:2], "user")
    assert (group.enrolments, group.receipts, group.cpu_seconds) == (2, 2, 864.0)
    assert (group.first_accepted_at.timestamp(), group.last_accepted_at.timestamp()) == (1.0, 2.0)
    assert [one.enrolments for one in group_rows(ROWS[2:4], "label")] == [1]


@pytest.mark.parametrize(
    ("label", "words"),
    [
        ("host=17 user=4, team=2", {"host": "17", "user": "4", "team": "2"}),
        ("user=4 user=5", {"user": "4"}),
        ("superuser=4 user= =3 user", {}),
        ("", {}),
    ],
)
def test_words_of_a_label(label: str, words: dict[str, str]) -> None:
    assert label_words(label) == words
