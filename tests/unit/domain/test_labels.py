"""Labels have one spelling, and what cannot be one is rejected without being quoted."""

import pytest

from worker.domain.errors import InvalidInput
from worker.domain.labels import LABEL_LIMIT, parse_labels


def test_labels_are_in_lower_case_in_order_and_each_once() -> None:
    assert parse_labels(["eu", "Customer=42", "EU", "a.b_c:d/e@f+g-h"]) == ("a.b_c:d/e@f+g-h", "customer=42", "eu")


@pytest.mark.parametrize(
    "label", ["", " ", "two words", "a,b", "-x", "=x", "\N{KELVIN SIGN}", "ü", "x\n", "\x1b[31m", "x" * 64, "{x}", "%"]
)
def test_what_is_no_label_is_rejected_without_being_quoted(label: str) -> None:
    """It may be a token in the wrong place, or an escape sequence."""
    with pytest.raises(InvalidInput) as caught:
        parse_labels([label])

    assert "1 to 63 letters, digits" in str(caught.value)
    assert len(label) < 2 or label not in str(caught.value)


def test_one_string_is_not_taken_for_a_list_of_letters() -> None:
    with pytest.raises(InvalidInput, match="not one string"):
        parse_labels("eu")


def test_an_account_has_few_labels() -> None:
    many = [f"label{number}" for number in range(LABEL_LIMIT)]
    assert len(parse_labels(many)) == LABEL_LIMIT

    with pytest.raises(InvalidInput, match="more than 16 labels"):
        parse_labels([*many, "one-more"])
