from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from wpa.hooks import core
from wpa.hooks.steps import step_type_of
from wpa.model.limits import Limits
from wpa.plan import check

CATALOG = {found.name: found.signature for found in map(step_type_of, core.wpa_steps()) if found is not None}


def plan(*steps: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"id": "p", "version": "1", "steps": list(steps), **more}


def echo(name: str, *needs: str, **more: Any) -> dict[str, Any]:
    return {"id": name, "uses": "core.echo", "needs": list(needs), **more}


def problems(document: Any) -> list[str]:
    return [str(problem) for problem in check(document, CATALOG)]


def test_a_good_plan_has_no_problems() -> None:
    assert problems(plan(echo("a"), echo("b", "a", **{"with": {"x": "${steps.a.output.y}"}}))) == []


@pytest.mark.parametrize(
    ("document", "path", "words"),
    [
        ([], "$", "must be a JSON object"),
        ({}, "$.id", "missing"),
        (plan(), "$.steps", "at least 1"),
        (plan(echo("a"), zap=1), "$.zap", "unknown field 'zap'"),
        (plan(echo("a", neds=[])), "$.steps[0].neds", "did you mean 'needs'?"),
        (plan(echo("a b")), "$.steps[0].id", "not a valid name"),
        (plan(echo("a"), echo("a")), "$.steps[1].id", "taken by $.steps[0]"),
        (plan(echo("alpha"), echo("b", "alhpa")), "$.steps[1].needs[0]", "did you mean 'alpha'?"),
        (plan(echo("a", "b"), echo("b", "a")), "$.steps[0]", "b -> a -> b"),
        (plan(echo("a", "a")), "$.steps[0]", "wait for each other"),
        (plan({"id": "a", "uses": "core.ecko"}), "$.steps[0].uses", "did you mean 'core.echo'?"),
        (plan({"id": "a", "uses": "core.log", "with": {}}), "$.steps[0].with", "needs the input 'message'"),
        (plan({"id": "a", "uses": "core.log", "with": {"message": 5}}), "$.steps[0].with.message", "not of type 'string'"),
        (plan({"id": "a", "uses": "core.log", "with": {"message": "", "levle": "info"}}), "$.steps[0].with.levle", "did you mean 'level'?"),
        (plan(echo("a", timeout="5 min")), "$.steps[0].timeout", "write it as '250ms'"),
        (plan(echo("a", retry={"max_attempts": 0})), "$.steps[0].retry.max_attempts", "greater than or equal to 1"),
        (plan(echo("a", retry={"backoff": {"initial": "1x"}})), "$.steps[0].retry.backoff.initial", "not a duration"),
        (plan(echo("a", priority=12)), "$.steps[0].priority", "less than or equal to 9"),
        (plan(echo("a", on_error="explode")), "$.steps[0].on_error", "'fail', 'continue' or 'compensate'"),
        (plan(echo("a", **{"with": {"x": "${inptu.y}"}})), "$.steps[0].with.x", "undeclared reference to 'inptu"),
        (plan(echo("charge"), echo("b", "charge", **{"with": {"x": "${steps.chrage.output}"}})), "$.steps[1].with.x", "did you mean 'charge'?"),
        (plan(echo("a"), echo("b", **{"with": {"x": "${steps.a.output}"}})), "$.steps[1].with.x", "add 'a' to its needs"),
        (plan(echo("a"), echo("b", "a", **{"if": "steps.a.outptu.x"})), "$.steps[1].if", "did you mean 'output'?"),
        (plan(echo("a", **{"with": {"x": "${vars.nope}"}})), "$.steps[0].with.x", "no variable 'nope'"),
        (plan(echo("a", set={"v": 1}), echo("b", **{"with": {"x": "${vars.v}"}})), "$.steps[1].with.x", "set by step 'a'"),
        (plan(echo("a", **{"with": {"x": "${input.amuont}"}}), input={"properties": {"amount": {}}}), "$.steps[0].with.x", "did you mean 'amount'?"),
        (plan(echo("a", **{"with": {"x": "${execution.name}"}})), "$.steps[0].with.x", "'execution.name' is unknown"),
        (plan(echo("a", **{"with": {"x": "${steps.a.output}"}})), "$.steps[0].with.x", "its own output"),
        (plan(echo("a"), input={"type": "objekt"}), "$.input.type", "not a JSON Schema"),
        (plan(echo("a"), input={"$ref": "http://example.org/s.json"}), "$.input.$ref", "outside the document"),
        (plan({"id": "d", "switch": [{"when": "true", "next": "nope"}]}), "$.steps[0].switch[0].next", "no step 'nope'"),
        (plan({"id": "d", "switch": []}), "$.steps[0].switch", "at least 1"),
        (plan({"id": "d", "switch": [{"when": "true", "next": "a"}], "default": "b"}, echo("a"), echo("b")), "$.steps[0].default", "can't be reached"),
        (plan(echo("a"), output="${steps.b.output}"), "$.output", "no step 'b'"),
        (plan(echo("a", compensate={"uses": "core.undo"})), "$.steps[0].compensate.uses", "no installed plugin"),
        (plan(echo("a"), version="1..2"), "$.version", "not a valid name"),
    ],
)  # fmt: skip
def test_each_problem_has_its_path_and_words(document: Any, path: str, words: str) -> None:
    found = check(document, CATALOG)
    assert path in [problem.path for problem in found], found
    assert any(words in str(problem) for problem in found if problem.path == path), found


def test_all_problems_come_at_once_in_the_documents_order() -> None:
    document = plan(
        {"id": "a", "uses": "core.ecko", "with": {"x": "${inptu.y}"}},
        echo("b", "a", **{"with": {"x": "${steps.c.output}"}}),
    )
    assert [problem.path for problem in check(document, CATALOG)] == [
        "$.steps[0].uses",
        "$.steps[0].with.x",
        "$.steps[1].with.x",
    ]


def test_a_step_with_a_queue_may_be_of_a_type_that_is_not_installed_here() -> None:
    assert problems(plan({"id": "a", "uses": "gpu.train", "queue": "gpu"})) == []


def test_limits_are_clear_errors() -> None:
    many = plan(*(echo(f"s{n}") for n in range(11)))
    assert "11 steps; the most is 10" in str(check(many, CATALOG, Limits(steps_max=10))[0])
    deep: Any = 1
    for _ in range(100):
        deep = [deep]
    assert "nested" in str(check(plan(echo("a", **{"with": {"x": deep}})), CATALOG)[0])


def test_the_largest_plan_allowed_is_checked() -> None:
    steps = [
        echo(f"s{n}", *([f"s{n - 1}"] if n else []), **{"with": {"x": "${input.y}"}}) for n in range(2_000)
    ]
    assert check(plan(*steps), CATALOG) == []


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
WORDS = st.sampled_from(
    ["id", "version", "steps", "uses", "with", "needs", "if", "switch", "when", "next", "default", "retry", "input", "output", "set", "compensate", "a", "b", "core.echo", "${steps.a.output}", "${", "1s", "core.wait", "core.sleep", "core.approval", "core.workflow", "for", "until", "signal", "foreach", "in", "as", "repeat", "while", "join", "any", "race", "signals", "schema", "triggers", "subject", "start", "filter", "schedule", "cron", "every", "escalate", "item"]
)  # fmt: skip
NEARLY = st.recursive(
    WORDS | st.integers(-1, 12) | st.none(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(WORDS, inner, max_size=6),
    max_leaves=25,
)


@given(JSON | NEARLY)
def test_check_never_raises(document: Any) -> None:
    check(document, CATALOG)


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.dictionaries(WORDS, NEARLY, max_size=6), min_size=1, max_size=4))
def test_check_never_raises_on_nearly_good_steps(steps: list[Any]) -> None:
    check({"id": "p", "version": "1", "steps": steps}, CATALOG)


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(
    st.dictionaries(
        st.sampled_from(["signals", "triggers", "schedule", "timeout", "input"]), NEARLY, min_size=1
    )
)
def test_check_never_raises_on_nearly_good_documents(fields: dict[str, Any]) -> None:
    check({"id": "p", "version": "1", "steps": [echo("a")], **fields}, CATALOG)
