from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wpa.engine.outcome import NESTING_MAX, decode, encode, failure_of
from wpa.errors import StepFailed


def nested(levels: int) -> Any:
    value: Any = 1
    for level in range(levels):
        value = [value] if level % 2 else {"a": value}
    return value


@dataclass
class Reading:
    celsius: float


json_data = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8")),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(codec="utf-8")), inner),
)  # fmt: skip


@given(json_data)
def test_json_data_comes_back_as_it_was(value: Any) -> None:
    assert decode(encode(value)) == value


@pytest.mark.parametrize(
    "output",
    [
        float("nan"),
        {"a": [1, {"b": float("inf")}]},
        [None, float("-inf")],
        {"a": (None, (float("nan"),))},
        {"inside": Reading(float("nan"))},
        {"lone surrogate": "\ud800"},
        {1j: 1},
        object(),
    ],
)
def test_what_json_cannot_hold_is_refused_not_changed(output: Any) -> None:
    with pytest.raises(StepFailed) as caught:
        encode(output)
    assert (caught.value.type, caught.value.retryable) == ("InvalidOutput", False)


@pytest.mark.parametrize(("output", "where"), [(10**400, "$"), ({"n": [2**63]}, "$.n[0]")])
def test_an_integer_that_no_input_may_hold_is_no_output(output: Any, where: str) -> None:
    with pytest.raises(StepFailed) as caught:
        encode(output)
    assert (caught.value.type, caught.value.retryable) == ("InvalidOutput", False)
    assert caught.value.message == (
        f"the step returned what can't be recorded as JSON: {where} is an integer of more than 64 bits; "
        "send it as a string"
    )


def test_null_and_the_word_null_are_no_nan() -> None:
    assert encode({"a": None, "b": "null", "c": Reading(1.5)}) == b'{"a":null,"b":"null","c":{"celsius":1.5}}'


def test_an_output_is_nested_no_deeper_than_readers_can_follow() -> None:
    assert decode(encode(nested(NESTING_MAX))) == nested(NESTING_MAX)
    for levels in (NESTING_MAX + 1, 480, 900, 5_000):
        with pytest.raises(StepFailed) as caught:
            encode(nested(levels))
        assert caught.value.type == "InvalidOutput"
    wide = [[1]] * 1_000
    assert decode(encode(wide)) == wide


class Unreadable(Exception):
    def __str__(self) -> str:
        raise RuntimeError


class Bare(StepFailed):
    def __init__(self) -> None:  # doesn't call the base class
        pass


@pytest.mark.parametrize(
    ("error", "kind", "message", "retryable", "details"),
    [
        (KeyError("x"), "KeyError", "'x'", True, {}),
        (StepFailed("no", type="Nope", retryable=False, details={"a": 1}), "Nope", "no", False, {"a": 1}),
        (StepFailed(ValueError("odd")), "StepFailed", "odd", True, {}),  # type: ignore[arg-type]
        (StepFailed("x", details=[1]), "StepFailed", "x", True, {"value": [1]}),  # type: ignore[arg-type]
        (StepFailed("x", details={"o": {1, 2}}), "StepFailed", "x", True, {"o": [1, 2]}),
        (Bare(), "Bare", "", True, {}),
        (Unreadable(), "Unreadable", "(its message can't be shown)", True, {}),
        (FileNotFoundError("caf\udce9"), "FileNotFoundError", "caf\\udce9", True, {}),
        (SystemExit(3), "SystemExit", "3", True, {}),
    ],
)
def test_any_exception_is_recorded(
    error: BaseException, kind: str, message: str, retryable: bool, details: dict[str, Any]
) -> None:
    failure = failure_of(error)
    assert (failure.type, failure.message) == (kind, message)
    assert (failure.retryable, failure.details) == (retryable, details)
    assert msgspec.json.decode(msgspec.json.encode(failure), type=type(failure)) == failure


def test_a_failure_is_bounded() -> None:
    failure = failure_of(StepFailed("m" * 10_000, details={"page": "x" * 100_000}))
    assert len(failure.message) == 2_000
    assert len(msgspec.json.encode(failure)) < 5_000
    assert "repr" in failure_of(StepFailed("x", details={"o": object()})).details
    assert "shortened" in failure_of(StepFailed("x", details={"o": nested(400)})).details
