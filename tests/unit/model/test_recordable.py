from __future__ import annotations

import json
from typing import Any

import pytest

from wpa.model.recordable import NESTING_MAX, encode_data, safe_details, safe_text


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
