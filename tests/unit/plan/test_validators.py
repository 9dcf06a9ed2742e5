from __future__ import annotations

import copy
import random
from typing import Any

import jsonschema
import pytest

from wpa.plan import check
from wpa.plan.pattern_price import price
from wpa.plan.validators import check_schema, misfits, validator


def test_a_schema_that_cannot_be_followed_is_a_problem_and_no_crash() -> None:
    for schema in ({"$ref": "#/nowhere"}, {"$ref": "#"}):
        (problem,) = misfits(validator(schema), {"x": 1}, "$.payload")
        assert problem.path == "$.payload"
        assert "can't be followed" in problem.message


def test_no_schema_and_true_fit_everything_and_false_fits_nothing() -> None:
    assert validator(None) is validator(True) is None
    assert misfits(None, object(), "$") == []
    assert len(misfits(validator(False), 1, "$")) == 1


def test_only_so_many_misfits_are_told() -> None:
    assert len(misfits(validator({"items": {"type": "string"}}), list(range(500)), "$")) == 50


def test_schemas_are_checked_themselves() -> None:
    assert check_schema({"type": "string"}, "$.input") == []
    assert check_schema({"type": "objekt"}, "$.input")[0].path == "$.input.type"
    assert "outside the document" in check_schema({"allOf": [{"$ref": "other.json"}]}, "$.input")[-1].message


@pytest.mark.parametrize(
    ("target", "leads"),
    [
        ("#", True),
        ("#/$defs/name", True),
        ("#/$defs/a~1b%20c", True),
        ("#/allOf/1", True),
        ("#there", True),
        ("#dynamic", True),
        ("#/$defs/nope", False),
        ("#/$defs/name/type", False),
        ("#/allOf/2", False),
        ("#/allOf/" + "9" * 5_000, False),
        ("#not-there", False),
    ],
)
@pytest.mark.parametrize("word", ["$ref", "$dynamicRef"])
def test_a_reference_leads_to_a_schema(word: str, target: str, leads: bool) -> None:
    schema = {
        "$defs": {
            "name": {"type": "string"},
            "a/b c": True,
            "anchored": {"$anchor": "there"},
            "other": {"$dynamicAnchor": "dynamic"},
        },
        "allOf": [{}, {"properties": {"x": {word: target}}}],
    }
    found = check_schema(schema, "$.input")
    assert [problem.path for problem in found] == ([] if leads else [f"$.input.allOf[1].properties.x.{word}"])
    if not leads:
        assert "leads to no schema" in found[0].message


def test_below_an_id_references_begin_there() -> None:
    inner = {"$id": "urn:inner", "$defs": {"a": {}}, "$ref": "#/$defs/a"}
    assert check_schema({"properties": {"x": inner}}, "$.input") == []
    assert check_schema({"$id": "urn:all", "$ref": "#/$defs/nope"}, "$.input") != []


def test_a_schedule_beside_a_schema_that_leads_nowhere_is_a_problem_and_no_crash() -> None:
    document = {
        "id": "p",
        "version": "1",
        "input": {"$ref": "#"},
        "schedule": {"every": "5m"},
        "steps": [{"id": "a", "uses": "core.noop"}],
    }
    assert [problem.path for problem in check(document)] == ["$.schedule.input"]


# -- what is done in another way than the library does it ------------------------------------

SUBSCHEMAS: list[Any] = [True, False, {}, {"type": "integer"}, {"const": 1}, {"enum": ["a", 1.0, [True]]}]
OBJECTS = ("properties", "patternProperties", "dependentSchemas")
KEYS = ["a", "ab", "b", "ba"]


def a_schema(dice: random.Random, depth: int) -> Any:
    """With the keywords that are done here, and those that they go by."""
    if depth == 0 or dice.random() < 0.15:
        return copy.deepcopy(dice.choice(SUBSCHEMAS))
    inner = lambda: a_schema(dice, depth - 1)  # noqa: E731
    schema: dict[str, Any] = {}
    for word in dice.sample(
        [
            *OBJECTS, "additionalProperties", "unevaluatedProperties", "unevaluatedItems", "if",
            "then", "else", "allOf", "anyOf", "oneOf", "prefixItems", "items", "contains", "not", "$ref",
        ],
        k=dice.randint(1, 5),
    ):  # fmt: skip
        if word in OBJECTS:
            schema[word] = {dice.choice(KEYS): inner() for _ in range(2)}
        elif word in ("allOf", "anyOf", "oneOf", "prefixItems"):
            schema[word] = [inner(), inner()]
        elif word == "$ref":
            schema[word] = "#/$defs/d"
        else:
            schema[word] = inner()
    return schema


def an_instance(dice: random.Random, depth: int = 2) -> Any:
    form = dice.random()
    if depth == 0 or form < 0.2:
        return dice.choice([1, 1.0, True, "a", None, 2, [True]])
    members = [an_instance(dice, depth - 1) for _ in range(dice.randint(0, 3))]
    return dict(zip(dice.sample(KEYS, k=len(members)), members, strict=True)) if form < 0.6 else members


@pytest.mark.parametrize("seed", range(20))
def test_the_same_fits_as_in_the_library(seed: int) -> None:
    dice = random.Random(seed)
    for _ in range(60):
        schema = a_schema(dice, 3)
        if isinstance(schema, dict):
            schema["$defs"] = {"d": dice.choice([dice.choice(SUBSCHEMAS), {"properties": {"a": True}}])}
        theirs = jsonschema.Draft202012Validator(schema)
        ours = validator(schema)
        for _ in range(20):
            instance = an_instance(dice)
            assert (misfits(ours, instance, "$") == []) == theirs.is_valid(instance), (schema, instance)


def test_what_is_unexpected_is_named() -> None:
    schema = {"properties": {"a": {}}, "patternProperties": {"^x": {}}, "additionalProperties": False}
    (problem,) = misfits(validator(schema), {"c": 1, "a": 1, "b": 1, "x1": 1}, "$")
    assert problem.message == "Additional properties are not allowed ('b', 'c' were unexpected)"


@pytest.mark.parametrize(
    ("pattern", "us"),
    [
        ("^abc$", 9),
        ("a{10}", 30),
        ("(?:ab){2,5}c", 42),
        ("((a{3}){4}){5,}", 180),
        (r"[a-z\]]\d.", 27),
        (r"\pL{1,100}", 150_000),
        ("((((", 0),
        ("))))", 0),
        ("{3}", 0),
    ],
)
def test_a_pattern_is_as_dear_as_it_is_long_when_it_is_written_out(pattern: str, us: int) -> None:
    assert price(pattern, 0) == 1 + us // 10
    assert price(pattern, 1_000_000) > price(pattern, 1_000) > price(pattern, 0)
