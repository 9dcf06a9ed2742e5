"""Definitions gone wrong: every one has problems, or can be kept, loaded and drawn; and soon."""

from __future__ import annotations

import json
import time
from datetime import datetime
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.fuzz import DEFINITIONS, ODD_TEXT, VALUES, encoded, fuzz, mutated
from wpa import plan
from wpa.errors import DefinitionError
from wpa.model import cron
from wpa.model.times import parse_ms, rfc3339
from wpa.plan.durations import parse_duration_ms
from wpa.plan.expressions import ExpressionError, compile_expression
from wpa.plan.templates import compile_template
from wpa.plan.validators import check_schema, misfits, validator

Body = dict[str, Any]

SOON_S = 60
"""Takes a second or some; what it is held against took hours, or for ever."""


def document(**fields: Any) -> Body:
    return {"id": "p", "version": "1", "steps": [{"id": "a", "uses": "core.echo"}], **fields}


# -- whole documents -------------------------------------------------------------------------


def kept_or_refused(found: Any) -> None:
    problems = plan.check(found)
    if problems:
        assert all(problem.path.startswith("$") and problem.message for problem in problems)
        return
    # As it is stored, and read by any worker.
    again = msgspec.json.decode(msgspec.json.encode(found))
    assert again == found
    program = plan.load(again)
    assert program.hash == plan.content_hash(found)
    assert "flowchart" in plan.mermaid(found)
    assert plan.svg(found).startswith("<svg")


@fuzz(60)
@given(st.sampled_from(sorted(DEFINITIONS)).flatmap(lambda name: mutated(DEFINITIONS[name])) | VALUES)
@example(document(output=float("inf")))
@example(document(variables={"x": [float("nan")]}))
@example(document(steps=[{"id": "a", "uses": "core.sleep", "with": {"until": "9999-12-31T23:59:59-23:59"}}]))
def test_a_definition_gone_wrong_has_problems_or_is_kept_as_it_is(found: Any) -> None:
    kept_or_refused(found)


@fuzz(25)
@given(st.sampled_from(sorted(DEFINITIONS)), st.data())
def test_a_file_gone_wrong_is_no_definition_or_has_problems(name: str, data: st.DataObject) -> None:
    text = json.dumps(DEFINITIONS[name], indent=data.draw(st.sampled_from([None, 1])))
    start = data.draw(st.integers(0, len(text)))
    text = (
        text[:start]
        + data.draw(st.text(max_size=4) | ODD_TEXT)
        + text[start + data.draw(st.integers(0, 9)) :]
    )
    try:
        found = plan.parse(text, data.draw(st.sampled_from(["p.json", "p.yaml", ""])))
    except DefinitionError as error:
        assert error.problems
    else:
        kept_or_refused(found)


@pytest.mark.parametrize(
    "texts", [["${input}" * 400_000], ["${input.a}"] * 300_000, ["${input == '" + "x" * 4_000 + "'}"] * 900],
    ids=["one text", "many", "long"],
)  # fmt: skip
def test_so_many_expressions_are_refused_before_they_are_compiled(texts: list[str]) -> None:
    began = time.monotonic()
    (problem,) = plan.check(document(output=texts))
    assert time.monotonic() - began < SOON_S
    assert "the most is" in problem.message


# -- schemas ---------------------------------------------------------------------------------


LEADS_NOWHERE: list[Body] = [
    {"$ref": "#/allOf/x", "allOf": [{}]},
    {"$ref": "#/const", "const": 5},
    {"$ref": "#/const", "const": {"type": 5}},
    {"$ref": "#/examples/0", "examples": [{"items": {"minimum": "x"}}]},
    {"$ref": "#/const", "const": {"properties": [1]}},
    {"properties": {"a": {"$id": "http://[", "$ref": "#/q"}}},
    {"unevaluatedItems": False, "$ref": "#/nope"},
    {"$dynamicRef": "#nope"},
]


@pytest.mark.parametrize("schema", LEADS_NOWHERE, ids=range(len(LEADS_NOWHERE)))
def test_a_schema_that_leads_nowhere_refuses_and_does_not_fail(schema: Body) -> None:
    """Not all of them are found when they are deployed, and none was by older releases."""
    problems = misfits(validator(schema), {"a": 1}, "$") + misfits(validator(schema), [1], "$")
    assert "can't be followed" in str(problems)


@fuzz(60)
@given(mutated(DEFINITIONS["order"]["input"]) | VALUES.filter(lambda value: isinstance(value, dict)), VALUES)
def test_a_schema_gone_wrong_has_problems_or_answers(schema: Any, data: Any) -> None:
    if not isinstance(schema, dict):
        return
    if not check_schema(schema, "$"):
        for problem in misfits(validator(schema), data, "$"):
            assert problem.path.startswith("$")
            assert len(str(problem)) < 2_000


class TestPatterns:
    @pytest.mark.parametrize("pattern", ["^(?!x)", r"(a)\1", "(?<=a)b", "a{5000}"])
    def test_what_can_not_be_matched_in_linear_time_is_refused(self, pattern: str) -> None:
        (problem,) = check_schema({"properties": {"x": {"pattern": pattern}}}, "$.input")
        assert problem.path == "$.input.properties.x.pattern"
        assert "can't be used" in problem.message

    @pytest.mark.parametrize(
        ("pattern", "fits", "fits_not"),
        [
            ("b", "abc", "ac"),
            ("^[A-Z]{3}-[0-9]{4,8}$", "ABC-12345", "ABC-123"),
            (r"^\u0041$", "A", "u0041"),
            (r"^\\u0041$", r"\u0041", "A"),
            (r"^\d+$", "12", "\u0661"),
            ("^a$", "a", "a\n"),
            ("^é.$", "é😀", "e"),
            ("a\0b", "a\0b", "ab"),
            (r"a\x00\u0000b", "a\0\0b", "ab"),
            ("^[a-z]+$", "abc", "abc\0!"),
        ],
    )
    def test_it_is_found_anywhere_as_javascript_would(self, pattern: str, fits: str, fits_not: str) -> None:
        schema = {"pattern": pattern}
        assert check_schema(schema, "$") == []
        assert misfits(validator(schema), fits, "$") == []
        assert len(misfits(validator(schema), fits_not, "$")) == 1

    def test_properties_may_have_the_names_of_keywords(self) -> None:
        schema = {"properties": {"pattern": {"type": "string"}, "$ref": {"type": "string"}}}
        assert check_schema(schema, "$") == []
        assert len(misfits(validator(schema), {"pattern": 1}, "$")) == 1


class TestUnique:
    @pytest.mark.parametrize(
        ("items", "unique"),
        [
            ([1, True, "1", None, [1], {"a": 1}], True),
            ([0, False], True),
            ([[], {}, ""], True),
            ([1, 1.0], False),
            ([[1, [2]], [1, [2.0]]], False),
            ([{"a": 1, "b": [2]}, {"b": [2], "a": 1}], False),
            ([None, None], False),
        ],
        ids=range(7),
    )
    def test_it_means_what_json_schema_says(self, items: list[Any], unique: bool) -> None:
        assert (misfits(validator({"uniqueItems": True}), items, "$") == []) is unique
        assert misfits(validator({"uniqueItems": False}), items, "$") == []


# -- what stands in them ---------------------------------------------------------------------


CEL_WORDS = st.sampled_from(
    [*"()[]{}.,?:!-+*/%<>\"'\\ \n", "input", "vars", "steps", "a", "in", "&&", "||", "==", "1", "1.5", "1u", "0x1",
     "true", "null", ".map(x,", ".all(x,", ".matches(", ".size()", "size(", "int(", "timestamp(", "duration(", "b'",
     "r'", "'''", "//", "${", "$${", "\ud800", "\0", "é", "9" * 30, "has(", ".format([", "dyn("]
)  # fmt: skip
EXPRESSIONS = st.lists(CEL_WORDS, max_size=14).map("".join) | st.text(max_size=30)
SCOPE: Body = {"input": {"a": [1, "x", None, {"b": 1.5}]}, "vars": {"a": -1}, "steps": {}, "execution": {}}


@fuzz(150)
@given(EXPRESSIONS)
@example("(" * 2_000)
@example("[" * 2_000 + "]" * 2_000)
@example("!" * 4_000 + "true")
@example("input" + ".a" * 2_000)
@example("true?1:" * 500 + "1")
@example("'" * 4_000)
@example('r"""' * 900)
@example("'%.999999999f'.format([1.0])")
@example("timestamp('0001-01-01T00:00:00Z') - duration('1h')")
def test_an_expression_gives_json_or_says_why_not(text: str) -> None:
    try:
        value = compile_expression(text).evaluate(SCOPE)
    except ExpressionError as error:
        assert str(error)
    else:
        assert msgspec.json.decode(msgspec.json.encode(value)) == value


WITH_NUL: Body = {"input": {"a": "a\0b", "b": "b", "c": [{"k\0": 1, "d": "\\\\u0000"}]}, "steps": {}}


class TestNul:
    """CEL's binding ends texts at a NUL; nothing may change on its way through an expression."""

    @pytest.mark.parametrize(
        ("text", "value"),
        [
            ("input", WITH_NUL["input"]),
            ("input.a", "a\0b"),
            ("input.c", WITH_NUL["input"]["c"]),
            ("input.b + '!'", "b!"),
            ("input.c[0].d", "\\\\u0000"),
            ("'a\\u0000b'", "a\0b"),
        ],
        ids=range(6),
    )
    def test_what_only_passes_through_is_as_it_was(self, text: str, value: Any) -> None:
        scope = WITH_NUL if text != "input.c[0].d" else {"input": {"c": [{"d": "\\\\u0000"}]}}
        assert compile_expression(text).evaluate(scope) == value

    @pytest.mark.parametrize(
        "text", ["input.a + 'x'", "input.a == 'a'", "size(input.a)", "[input.a]", "input.c[0]"]
    )
    def test_what_would_be_cut_short_is_refused(self, text: str) -> None:
        with pytest.raises(ExpressionError, match="holds a NUL"):
            compile_expression(text).evaluate(WITH_NUL)


@fuzz(100)
@given(st.lists(EXPRESSIONS.map("${{{}}}".format) | st.text(max_size=5) | ODD_TEXT, max_size=3).map("".join))
def test_a_template_gives_json_or_says_why_not(text: str) -> None:
    template, complaints = compile_template({"x": [text]}, "$.with")
    if complaints:
        assert all(path.startswith("$.with") and what for path, what in complaints)
        return
    try:
        found = template.render(SCOPE)
    except ExpressionError as error:
        assert str(error)
    else:
        encoded(found)


@fuzz(150)
@given(st.text("0123456789.msdh -+e", max_size=12) | ODD_TEXT | st.text(max_size=8))
@example("9" * 5_000 + "d")
@example("0." + "1" * 5_000 + "ms")
@example("\u0661s")
def test_a_duration_is_read_or_refused(text: str) -> None:
    try:
        found = parse_duration_ms(text)
    except ValueError as error:
        assert "duration" in str(error) or "longer" in str(error)
    else:
        assert 0 <= found <= 100 * 366 * 86_400_000


FIELDS = st.sampled_from(
    [
        "*",
        "?",
        "0",
        "5",
        "59",
        "60",
        "*/5",
        "*/0",
        "1-5",
        "5-1",
        "1,2",
        "JAN",
        "SUN-SAT",
        "L",
        "W",
        "",
        "29",
        "2",
        "x",
    ]
)
ZONES = st.sampled_from(
    ["", "UTC", "Europe/Madrid", "Pacific/Apia", "America", "../x", "\0", "Europe/" + "x" * 300]
)


@fuzz(100)
@given(st.lists(FIELDS, min_size=4, max_size=7).map(" ".join) | ODD_TEXT | st.text(max_size=12), ZONES)
@example("0 0 0 30 2 *", "")
@example("0 0 0 29 2 1", "")
@example("@every " + "9" * 400 + "h", "")
def test_a_schedule_is_read_or_refused(spec: str, zone: str) -> None:
    now = parse_ms("2026-11-20T10:00:00Z")
    try:
        cron.check(spec, zone)
    except ValueError as error:
        assert str(error)
        return
    try:
        assert cron.next_after(spec, zone, now) > now
    except ValueError as error:
        assert "does not fire" in str(error)


@fuzz(100)
@given(st.datetimes() | ODD_TEXT | st.text("0123456789-:TZ.+ ", max_size=30), st.integers(-(10**15), 10**15))
def test_a_moment_is_read_or_refused_and_any_can_be_written(moment: datetime | str, ms: int) -> None:
    text = moment if isinstance(moment, str) else f"{moment.isoformat()}Z"
    try:
        parsed = parse_ms(text)
    except ValueError:
        assert isinstance(moment, str)
    else:
        assert abs(parse_ms(rfc3339(parsed)) - parsed) <= 86_400_000  # the ends of time
    assert parse_ms(rfc3339(ms)) == ms or not -62_135_596_800_000 <= ms <= 253_402_300_799_000
