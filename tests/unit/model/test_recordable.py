from __future__ import annotations

import json
from typing import Any

import pytest

from wpa.model.recordable import NESTING_MAX, check_integers, encode_data, safe_details, safe_text


def nested(levels: int) -> Any:
    value: Any = {}
    for _ in range(levels - 1):
        value = [value]
    return value


@pytest.mark.parametrize("data", [None, 1, "é", [None, 1.5], {"a": {"b": [True]}}, nested(NESTING_MAX)])
def test_what_json_can_hold_is_written(data: Any) -> None:
    assert json.loads(encode_data(data)) == data


@pytest.mark.parametrize(
    "data",
    [float("nan"), {"a": [float("inf")]}, (1, float("-inf")), "\ud800", nested(NESTING_MAX + 1), object()],
)
def test_what_it_can_not_hold_is_refused(data: Any) -> None:
    with pytest.raises((TypeError, ValueError)):
        encode_data(data)


@pytest.mark.parametrize(
    ("data", "where"),
    [
        (2**63, "$"),
        (-(2**63) - 1, "$"),
        (10**400, "$"),
        ({"rows": [1, {"id": 2**64}]}, "$.rows[1].id"),
        ({"a b": [10**400]}, "$['a b'][0]"),
    ],
)
def test_integers_of_more_than_64_bits_are_refused_with_their_place(data: Any, where: str) -> None:
    with pytest.raises(ValueError, match="64 bits") as caught:
        check_integers(encode_data(data))
    assert str(caught.value) == f"{where} is an integer of more than 64 bits; send it as a string"


@pytest.mark.parametrize("data", [2**63 - 1, -(2**63), 1e300, "9" * 400, {"9" * 30: [1.0]}, [None, 1]])
def test_other_data_may_have_as_many_digits_as_it_likes(data: Any) -> None:
    check_integers(encode_data(data))


def test_any_text_can_be_shown() -> None:
    class Hostile:
        def __str__(self) -> str:
            raise ValueError

    assert safe_text(Hostile()) == "(its message can't be shown)"
    assert safe_text("a\ud800b") == "a\\ud800b"
    assert safe_text("abc", 2) == "ab"


def test_any_details_can_be_recorded() -> None:
    assert safe_details(None) == {}
    assert safe_details({"a": 1}) == {"a": 1}
    assert safe_details([1]) == {"value": [1]}
    assert safe_details({"a": {1}, "b": object}).keys() == {"repr"}
    assert safe_details({"a": "x" * 100_000}).keys() == {"shortened"}
