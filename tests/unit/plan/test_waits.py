from __future__ import annotations

from typing import Any

import pytest

from tests.unit.plan.player import begin, boom, plan_of
from wpa.errors import DefinitionError
from wpa.kernel.program import Approval, Child, Escalation, Wait, Want
from wpa.plan import SIGNATURES, check


def waiting(uses: str, /, **more: Any) -> dict[str, Any]:
    inputs = more.pop("inputs", {})
    return {"id": "w", "uses": uses, "with": inputs, **more}


def wanted(uses: str, inputs: dict[str, Any], data: Any = None, **more: Any) -> Want:
    return begin(waiting(uses, inputs=inputs, **more), data=data).open["w"]


HOUR = 3_600_000


@pytest.mark.parametrize(
    ("uses", "kind", "inputs", "wait"),
    [
        ("core.sleep", "timer", {"for": "1h"}, Wait(delay_ms=HOUR)),
        ("core.sleep", "timer", {"until": "2020-01-01T00:00:00Z"}, Wait(until="2020-01-01T00:00:00Z")),
        ("core.wait", "signal", {"signal": "paid"}, Wait(signal="paid")),
        ("core.wait", "signal", {"signal": "paid", "timeout": "1h", "default": None}, Wait(signal="paid", delay_ms=HOUR, has_default=True)),
        ("core.approval", "approval", {}, Wait(approval=Approval())),
        (
            "core.approval",
            "approval",
            {"users": "ann", "roles": ["boss"], "count": 2, "message": "?", "timeout": "1h", "escalate": [{"after": "1h", "roles": "board"}]},
            Wait(
                delay_ms=HOUR,
                approval=Approval(users=("ann",), roles=("boss",), count=2, message="?", escalations=(Escalation(after_ms=HOUR, roles=("board",)),)),
            ),
        ),
        ("core.workflow", "child", {"workflow": "c"}, Wait(child=Child(workflow="c", input={}))),
        (
            "core.workflow",
            "child",
            {"workflow": "c", "version": 2, "input": [1], "execution_id": "x", "wait": False, "on_cancel": "abandon"},
            Wait(child=Child(workflow="c", version="2", input=[1], execution="x", detached=True, on_cancel="abandon")),
        ),
    ],
)  # fmt: skip
def test_constants_become_waits(uses: str, kind: str, inputs: dict[str, Any], wait: Wait) -> None:
    want = wanted(uses, inputs)
    assert (want.kind, want.uses, want.wait, want.fault) == (kind, uses, wait, None)
    assert want.inputs == inputs


def test_expressions_are_rendered_and_then_checked() -> None:
    data = {"minutes": 5, "at": "2030-01-01T00:00:00+01:00", "who": ["ann"]}
    assert wanted("core.sleep", {"for": "${input.minutes}m"}, data).wait == Wait(delay_ms=300_000)
    assert wanted("core.sleep", {"until": "${input.at}"}, data).wait == Wait(until=data["at"])
    approval = wanted("core.approval", {"users": "${input.who}"}, data).wait
    assert approval == Wait(approval=Approval(users=("ann",)))


@pytest.mark.parametrize(
    ("uses", "inputs", "words"),
    [
        ("core.sleep", {"for": "${input.bad}"}, "core.sleep: $.for: 'soon' is not a duration; write it as"),
        ("core.sleep", {"until": "${input.bad}"}, "is no moment"),
        ("core.sleep", {"until": "${input.naive}"}, "with a time zone"),
        ("core.sleep", {"for": "${input.five}"}, "$.for: must be a valid string"),
        ("core.wait", {"signal": "${input.spaced}"}, "'a b' is not a valid name"),
        ("core.approval", {"users": "${input.who}", "count": 2}, "2 have to approve, but only 1 may answer"),
        ("core.workflow", {"workflow": "${input.spaced}"}, "not a valid name"),
    ],
)
def test_what_an_expression_gives_and_does_not_fit_is_a_fault(
    uses: str, inputs: dict[str, Any], words: str
) -> None:
    data = {"bad": "soon", "naive": "2030-01-01T00:00:00", "five": 5, "spaced": "a b", "who": ["ann"]}
    fault = wanted(uses, inputs, data).fault
    assert fault is not None
    assert (fault.type, fault.retryable) == ("InvalidInput", False)
    assert words in fault.message


def test_an_expression_that_fails_is_a_fault_too() -> None:
    fault = wanted("core.sleep", {"for": "${input.nope}"}).fault
    assert fault is not None
    assert fault.type == "ExpressionError"


@pytest.mark.parametrize(
    ("step", "path", "words"),
    [
        (waiting("core.sleep"), "with", "one of 'for' and 'until'"),
        (waiting("core.sleep", inputs={"for": "1h", "until": "${input.x}"}), "with", "one of 'for' and 'until'"),
        (waiting("core.sleep", inputs={"for": "soon"}), "with.for", "not a duration"),
        (waiting("core.sleep", inputs={"until": "tomorrow"}), "with.until", "no moment"),
        (waiting("core.sleep", inputs={"fro": "1h"}), "with.fro", "did you mean 'for'?"),
        (waiting("core.sleep", inputs={"for": "1h"}, timeout="1h"), "timeout", "no time-out"),
        (waiting("core.wait"), "with.signal", "missing"),
        (waiting("core.wait", inputs={"signal": "a b"}), "with.signal", "not a valid name"),
        (waiting("core.wait", inputs={"signal": "a", "default": 1}), "with.default", "never used"),
        (waiting("core.wait", inputs={"signal": "a", "timeout": "1h"}, timeout="1h"), "timeout", "give it once"),
        (waiting("core.wait", inputs={"signal": "a"}, retry={}), "retry", "'retry' means nothing here"),
        (waiting("core.wait", inputs={"signal": "a"}, at_most_once=True), "at_most_once", "means nothing"),
        (waiting("core.wait", inputs={"signal": "a"}, queue="gpu"), "queue", "means nothing"),
        (waiting("core.wait", inputs={"signal": "a"}, deadline="1h"), "deadline", "use timeout"),
        (waiting("core.approval", inputs={"count": 0}), "with.count", "greater than or equal to 1"),
        (waiting("core.approval", inputs={"users": ["a"], "count": 2}), "with", "only 1 may answer"),
        (waiting("core.approval", inputs={"escalate": [{"after": "1h"}]}), "with.escalate[0]", "'users' or 'roles'"),
        (waiting("core.approval", inputs={"escalate": [{"after": "x", "users": "a"}]}), "with.escalate[0].after", "not a duration"),
        (waiting("core.approval", inputs={"escalate": [{"afer": "1h"}]}), "with.escalate[0].afer", "did you mean 'after'?"),
        (waiting("core.workflow"), "with.workflow", "missing"),
        (waiting("core.workflow", inputs={"workflow": "c", "execution_id": "a.b"}), "with.execution_id", "not a valid name"),
        (waiting("core.workflow", inputs={"workflow": "c", "wait": False}, timeout="1s"), "timeout", "nothing to time out"),
        (waiting("core.workflow", inputs={"workflow": "c", "on_cancel": "explode"}), "with.on_cancel", "'cancel' or 'abandon'"),
        ({"id": "w", "uses": "core.echo", "compensate": {"uses": "core.sleep"}}, "compensate.uses", "can't be a compensation"),
        (waiting("core.slep"), "uses", "did you mean 'core.sleep'?"),
    ],
)  # fmt: skip
def test_constants_are_checked_when_the_definition_is_deployed(
    step: dict[str, Any], path: str, words: str
) -> None:
    found = check({"id": "p", "version": "1", "steps": [step]}, {"core.echo": SIGNATURES["core.sleep"]})
    assert f"$.steps[0].{path}" in [problem.path for problem in found], found
    assert any(words in str(problem) for problem in found if problem.path == f"$.steps[0].{path}"), found
    if path != "uses":
        with pytest.raises(DefinitionError):
            plan_of(step)


def test_waiting_steps_need_no_plugin() -> None:
    steps = [
        {"id": f"w{number}", "uses": uses, "with": inputs}
        for number, (uses, inputs) in enumerate(
            {"core.sleep": {"for": "1s"}, "core.wait": {"signal": "s"}, "core.approval": {}, "core.workflow": {"workflow": "c"}}.items()
        )
    ]  # fmt: skip
    assert check({"id": "p", "version": "1", "steps": steps}, {}) == []
    assert set(SIGNATURES) == {step["uses"] for step in steps}
    for name, signature in SIGNATURES.items():
        assert signature.name == name
        assert signature.description
        assert signature.input_schema["properties"]


def test_the_timeout_of_the_step_is_that_of_the_wait_but_the_default_timeout_is_not() -> None:
    step = waiting("core.wait", inputs={"signal": "s"})
    assert begin(step, defaults={"timeout": "1s"}).open["w"].wait == Wait(signal="s")
    assert begin({**step, "timeout": "1h"}).open["w"].wait == Wait(signal="s", delay_ms=HOUR)
    named = {**step, "timeout": "1h", "with": {"signal": "${input.name}"}}
    assert begin(named, data={"name": "s"}).open["w"].wait == Wait(signal="s", delay_ms=HOUR)
    child = waiting("core.workflow", inputs={"workflow": "c"}, timeout="1h")
    assert begin(child).open["w"].wait == Wait(delay_ms=HOUR, child=Child(workflow="c", input={}))


def test_a_wait_is_a_step_like_any_other() -> None:
    played = begin(
        waiting("core.wait", inputs={"signal": "s"}, on_error="continue", compensate={"uses": "x.undo", "with": {"v": "${steps.w.output.v}"}}),
        {"id": "after", "uses": "core.echo", "needs": ["w"], "with": {"s": "${steps.w.status}", "e": "${steps.w.error}"}},
    )  # fmt: skip
    assert played.run.progress().total == 2
    assert [view.kind for view in played.run.steps()] == ["signal", "step"]
    played.settle("w", boom("out of time", "Timeout"))
    assert played.open["after"].inputs == {"s": "failed", "e": {"type": "Timeout", "message": "out of time"}}
    again = begin(waiting("core.wait", inputs={"signal": "s"}, compensate={"uses": "x.undo", "with": {"v": "${steps.w.output.v}"}}))  # fmt: skip
    assert again.open["w"].policy.on_error == "compensate"
    again.settle("w", {"v": 5})
    undo = again.run.undo("w")
    assert undo is not None
    assert (undo.slot, undo.uses, undo.inputs) == ("w:undo", "x.undo", {"v": 5})
