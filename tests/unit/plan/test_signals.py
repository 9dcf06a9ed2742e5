from __future__ import annotations

from typing import Any

from tests.unit.plan.player import plan_of, step
from wpa.plan import check

AMOUNT = {"type": "object", "required": ["cents"], "properties": {"cents": {"type": "integer"}}}


def wait(signal: str, name: str = "w") -> dict[str, Any]:
    return {"id": name, "uses": "core.wait", "with": {"signal": signal}}


def test_signals_are_known_when_declared_or_waited_for() -> None:
    plan = plan_of(wait("paid"), signals={"shipped": {}})
    assert plan.check_signal("paid", {"any": "thing"}) == []
    assert plan.check_signal("shipped", None) == []
    (problem,) = plan.check_signal("piad", None)
    assert (problem.path, problem.hint) == ("$.payload.name", "did you mean 'paid'?")
    assert "knows no signal 'piad'" in problem.message


def test_a_plan_that_waits_for_nothing_says_so() -> None:
    (problem,) = plan_of(step("a")).check_signal("paid", None)
    assert problem.hint == "it waits for none"


def test_a_computed_name_may_be_any_name() -> None:
    plan = plan_of(wait("${input.name}"), signals={"paid": {"schema": AMOUNT}})
    assert plan.check_signal("whatever", None) == []
    assert plan.check_signal("paid", {}) != []


def test_a_payload_must_fit_the_schema_of_its_signal() -> None:
    plan = plan_of(wait("paid"), signals={"paid": {"schema": AMOUNT}})
    assert plan.check_signal("paid", {"cents": 5}) == []
    assert [problem.path for problem in plan.check_signal("paid", {"cents": "x"})] == [
        "$.payload.payload.cents"
    ]
    assert [problem.path for problem in plan.check_signal("paid", 5)] == ["$.payload.payload"]


def problems(*steps: dict[str, Any], **more: Any) -> list[str]:
    return [str(problem) for problem in check({"id": "p", "version": "1", "steps": list(steps), **more})]


def test_declarations_are_checked() -> None:
    assert (
        "$.signals.paid.schema.type: not a JSON Schema"
        in problems(step("a"), signals={"paid": {"schema": {"type": "objekt"}}})[0]
    )
    assert (
        "leads outside the document"
        in problems(step("a"), signals={"paid": {"schema": {"$ref": "http://x.org"}}})[0]
    )
    assert "did you mean 'schema'?" in problems(step("a"), signals={"paid": {"shcema": {}}})[0]
    assert problems(step("a"), signals={"a b": {}})[0].startswith("$.signals.a b: 'a b' is not a valid name")


def test_a_wait_for_a_misspelled_signal_is_found() -> None:
    (problem,) = problems(wait("piad"), signals={"paid": {}})
    assert problem.startswith("$.steps[0].with.signal")
    assert "did you mean 'paid'?" in problem
    assert problems(wait("other"), signals={"paid": {}}) == []
