"""What is held against a schema is answered soon, whatever the schema, and whatever the data."""

from __future__ import annotations

import itertools
import json
import time
from typing import Any

import pytest

from tests.unit.plan.test_hostile_definitions import SOON_S, Body, document
from wpa import plan
from wpa.plan import keywords
from wpa.plan.keywords import STEPS_MAX
from wpa.plan.validators import check_effort, check_schema, misfits, validator

TWICE_AT_EACH_LEVEL: Body = {
    "$ref": "#/$defs/a40",
    "$defs": {
        "a0": {"type": "string"},
        **{f"a{n + 1}": {"allOf": [{"$ref": f"#/$defs/a{n}"}] * 2} for n in range(40)},
    },
}


TOO_MUCH = f"more than {STEPS_MAX:,} steps"
SLOW = "a" * 40 + "!"
"""It doesn't match ``^(a+)+$``, and Python takes hours to find that out."""
DRAFT = "https://json-schema.org/draft/2020-12/schema"
MANY = list(range(100_000))
LARGE = {f"d{n}": {"$defs": {}} for n in range(2_000)}
SAME_HASH = [2.0 ** (61 * n) for n in range(-15, 15)]


@pytest.mark.parametrize(
    ("schema", "data", "words"),
    [
        ({"pattern": "^(a+)+$"}, "a" * 50_000 + "!", "does not match"),
        ({"patternProperties": {"^(a+)+$": False}}, {"a" * 50_000: 1}, "False schema"),
        ({"uniqueItems": True}, [{"n": n} for n in range(20_000)] + [{"n": 0}], "not unique"),
        (TWICE_AT_EACH_LEVEL, "text", TOO_MUCH),
        ({"patternProperties": {"^(a+)+$": {}}, "additionalProperties": False}, {SLOW: 1}, "not allowed"),
        ({"patternProperties": {"^(a+)+$": {}}, "unevaluatedProperties": False}, {SLOW: 1}, "not allowed"),
        ({"allOf": [{"$schema": DRAFT, "pattern": "^(a+)+$"}]}, SLOW, "does not match"),
        ({"$schema": DRAFT, "properties": {"x": {"$ref": "#"}}, "pattern": "^(a+)+$"}, SLOW, "not match"),
        ({"items": {"enum": list(range(100_000))}}, [99_999] * 1_000, TOO_MUCH),
        ({"allOf": [{"$ref": "#/$defs/c"}] * 1_000, "$defs": {"c": {"const": MANY}}}, MANY, TOO_MUCH),
        ({"allOf": [{"uniqueItems": True}] * 1_000}, list(range(100_000)), TOO_MUCH),
        ({"allOf": [{"pattern": "(x+x+)+y"}] * 1_000}, "x" * 300_000, "does not match"),
        ({"items": {"pattern": "^([^é]{1,300})$"}}, ["b"] * 10_000, TOO_MUCH),
        ({"anyOf": [{"type": "string"}] * 3_000}, list(range(100_000)), TOO_MUCH),
        ({"items": {"allOf": [True] * 3_000}}, [1] * 3_000, TOO_MUCH),
        ({"items": {"$ref": "#x"}, "$defs": {"x": {"$anchor": "x"}, **LARGE}}, [1] * 1_000, TOO_MUCH),
        ({"uniqueItems": True}, [*itertools.product(SAME_HASH, repeat=3), SAME_HASH[:3]], "not unique"),
        ({"contains": {"type": "null"}, "unevaluatedItems": False}, [None] * 50_000 + [1], "(1 was unexp"),
    ],
    ids=[
        *("pattern", "patternProperties", "uniqueItems", "references", "additionalProperties"),
        *("unevaluatedProperties", "dialect within", "dialect referred to", "enum", "const"),
        *("uniqueItems, often", "long texts", "long patterns", "large values in errors", "nothing, often"),
        *("anchors", "equal hashes", "unevaluatedItems"),
    ],
)
def test_no_schema_holds_up_a_worker(schema: Body, data: Any, words: str) -> None:
    assert [*check_effort([schema]), *check_schema(schema, "$")] == []
    data = json.loads(json.dumps(data))  # equal values are not one object
    began = time.monotonic()
    problem = misfits(validator(schema), data, "$")[-1]
    assert time.monotonic() - began < SOON_S
    assert words in problem.message


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"allOf": [{}] * 20_000}, "20,001 schemas within"),
        ({"prefixItems": [True] * 20_000}, "schemas within"),
        ({"patternProperties": {f"^([^é]{{1,999}})x{n}$": True for n in range(3_000)}}, "too long"),
    ],
)
def test_schemas_that_take_long_to_be_looked_at_are_refused_before(schema: Body, words: str) -> None:
    began = time.monotonic()
    for more in ({"input": schema}, {"signals": {"go": {"schema": schema}}}):
        (problem,) = plan.check(document(**more))
        assert words in problem.message
    assert time.monotonic() - began < SOON_S


def test_what_one_document_has_cost_is_not_held_against_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    counted = validator({"items": {"type": "integer"}})
    monkeypatch.setattr(keywords, "STEPS_MAX", 6_000)
    for _ in range(3):
        assert misfits(counted, [1] * 4_000, "$") == []
