"""The reference interpreter, plan by plan, from what the documentation of the language says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.checker import interpreter
from tests.checker.expressions import Unusable, condition, render
from tests.checker.interpreter import Interpreter

Body = dict[str, Any]


def begin(*steps: Body, data: Any = None, **more: Any) -> Interpreter:
    document = {"id": "x", "version": "1", "steps": [{"uses": "core.noop", **step} for step in steps], **more}
    return Interpreter(document, {} if data is None else data, {}, {"id": "e"})


def switch(id: str, *branches: tuple[str, Any], default: Any = None, **more: Any) -> Body:
    told = {"id": id, "switch": [{"when": when, "next": to} for when, to in branches], **more}
    return told if default is None else {**told, "default": default}


def done(run: Interpreter, *slots: str, value: Any = None) -> list[str]:
    for slot in slots:
        run.settle(slot, "completed", value)
    return sorted(run.wants)


def decide(run: Interpreter, slot: str) -> list[str]:
    decision = run.wants[slot].decision
    assert decision is not None
    run.settle(slot, "decided", decision)
    return sorted(run.wants)


def test_a_step_waits_for_all_that_it_needs() -> None:
    run = begin({"id": "a"}, {"id": "b"}, {"id": "c", "needs": ["a", "b"]})
    assert sorted(run.wants) == ["a", "b"]
    assert done(run, "a") == ["b"]
    assert done(run, "b") == ["c"]
    assert done(run, "c") == []
    assert run.finished
    assert run.output() == {"c": None}


def test_what_nobody_wants_can_not_be_settled() -> None:
    with pytest.raises(KeyError):
        begin({"id": "a"}).settle("b", "completed")


def test_a_decision_takes_the_first_branch_that_is_true_and_skips_the_others() -> None:
    steps = (switch("d", ("input.n > 5", "much"), ("input.n > 1", ["some", "more"]), default="none"),
             {"id": "much"}, {"id": "some"}, {"id": "more"}, {"id": "none"},
             {"id": "end", "needs": ["much", "some", "more", "none"]})  # fmt: skip
    run = begin(*steps, data={"n": 3})
    decision = run.wants["d"].decision
    assert decision == {
        "kind": "switch",
        "matched": 1,
        "taken": ["some", "more"],
        "skipped": ["much", "none"],
    }
    assert decide(run, "d") == ["more", "some"]
    assert done(run, "some", "more") == ["end"]
    run = begin(*steps, data={"n": 0})
    assert decide(run, "d") == ["none"]


def test_a_condition_that_is_false_skips_the_step_and_what_only_it_leads_to() -> None:
    run = begin({"id": "a", "if": "input.yes"}, {"id": "b", "needs": ["a"]}, data={"yes": False})
    assert decide(run, "a:if") == []
    assert run.finished
    assert run.output() == {}


def test_a_failure_that_goes_on_counts_as_an_end() -> None:
    run = begin(
        {"id": "a", "on_error": "continue"}, {"id": "b", "needs": ["a"], "if": "steps.a.status == 'failed'"}
    )
    run.settle("a", "failed", error={"type": "T", "message": "m"})
    assert sorted(run.wants) == ["b"]


def test_joins() -> None:
    three = [{"id": "a"}, {"id": "b"}, {"id": "c"}]
    run = begin(*three, {"id": "j", "needs": ["a", "b", "c"], "join": 2})
    assert done(run, "b") == ["a", "c"]
    assert done(run, "a") == ["c", "j"]
    run = begin(*three, {"id": "j", "needs": ["a", "b", "c"], "join": "any"})
    assert done(run, "c") == ["a", "b", "j"]


def test_a_race_drops_what_only_leads_to_it() -> None:
    run = begin(
        {"id": "a"}, {"id": "b"}, {"id": "b2", "needs": ["b"]}, {"id": "c"}, {"id": "other", "needs": ["c"]},
        {"id": "j", "needs": ["a", "b2", "c"], "join": "race"},
    )  # fmt: skip
    assert done(run, "a") == ["c", "j"]
    assert done(run, "j", "c") == ["other"]


def test_a_join_that_can_not_be_reached_is_skipped() -> None:
    skipped = {"if": "false"}
    run = begin({"id": "a", **skipped}, {"id": "b"}, {"id": "j", "needs": ["a", "b"], "join": 2})
    decide(run, "a:if")
    assert done(run, "b") == []
    assert run.finished


def test_a_foreach_runs_so_many_at_a_time_and_gives_its_outputs_in_order() -> None:
    each = {"id": "e", "foreach": {"in": "input.items", "as": "word", "concurrency": 2},
            "with": {"n": "${index}", "word": "${word}!"}, "compensate": {"uses": "core.noop"}}  # fmt: skip
    run = begin(each, data={"items": ["a", "b", "c"]}, output="${steps.e.output}")
    assert sorted(run.wants) == ["e", "e:2"]
    assert run.wants["e:2"].inputs == {"n": 1, "word": "b!"}
    run.settle("e:2", "completed", 2)
    assert sorted(run.wants) == ["e", "e:3"]
    run.settle("e:3", "completed", 3)
    run.settle("e", "completed", 1)
    assert run.output() == [1, 2, 3]
    assert run.undo() == ["e:undo", "e:3:undo", "e:2:undo"]


def test_a_foreach_over_nothing_is_decided() -> None:
    run = begin({"id": "e", "foreach": {"in": []}}, output="${steps.e.output}")
    assert decide(run, "e:foreach") == []
    assert run.output() == []


def test_an_item_that_gives_up_ends_the_loop_or_leaves_null() -> None:
    loop = {"id": "e", "foreach": {"in": [1, 2]}, "on_error": "continue"}
    run = begin(loop)
    run.settle("e", "failed", error={"type": "T", "message": "m"})
    assert run.wants == {}
    assert run.finished
    run = begin({"id": "e", "foreach": {"in": [1, 2], "on_error": "continue"}},
                output=["${steps.e.output}", "${steps.e.errors}"])  # fmt: skip
    assert run.wants["e"].policy.on_error == "continue"
    run.settle("e", "failed", error={"type": "T", "message": "m"})
    run.settle("e:2", "completed", 2)
    assert run.output() == [[None, 2], [{"index": 0, "type": "T", "message": "m"}]]


def test_a_repeat_goes_on_until_its_condition_with_a_delay_between() -> None:
    again = {"id": "r", "repeat": {"until": "output >= 2", "delay": "1s"}, "with": {"i": "${index}", "o": "${output}"},
             "compensate": {"uses": "core.noop"}}  # fmt: skip
    run = begin(again)
    assert run.wants["r"].inputs == {"i": 0, "o": None}
    assert done(run, "r", value=1) == ["r:delay"]
    assert done(run, "r:delay") == ["r:2"]
    assert run.wants["r:2"].inputs == {"i": 1, "o": 1}
    assert done(run, "r:2", value=2) == []
    assert run.undo() == ["r:2:undo", "r:undo"]


def test_a_repeat_without_an_end_is_exhausted() -> None:
    run = begin({"id": "r", "repeat": {"while": "true", "max": 2}})
    assert done(run, "r", "r:2") == ["r:3"]
    assert run.wants["r:3"].fault == "RepeatExhausted"


def test_variables_are_as_the_ancestors_left_them() -> None:
    run = begin(
        {"id": "a", "set": {"v": "${steps.a.output}"}},
        {"id": "b", "with": {"v": "${vars.v}"}},
        {"id": "c", "needs": ["a"], "with": {"v": "${vars.v}"}},
        variables={"v": 1},
    )
    assert run.wants["b"].inputs == {"v": 1}
    run.settle("a", "completed", 2)
    assert run.wants["c"].inputs == {"v": 2}


def test_what_can_not_be_computed_is_a_fault() -> None:
    run = begin(
        {"id": "a", "with": {"x": "${input.none}"}},
        {"id": "b", "if": "input"},
        {"id": "c", "foreach": {"in": "input.n"}},
        {"id": "d", "uses": "core.sleep", "with": {"for": "${input.n}"}},
        data={"n": 3},
    )
    faults = {slot: want.fault for slot, want in run.wants.items()}
    assert faults == {
        "a": "ExpressionError",
        "b": "ExpressionError",
        "c": "InvalidInput",
        "d": "InvalidInput",
    }


def test_variables_that_can_not_be_set_break_the_plan() -> None:
    run = begin({"id": "a", "set": {"v": "${input.none}"}})
    done(run, "a")
    assert (run.broken, run.finished) == ("ExpressionError", False)


def test_waits_say_for_what_and_until_when() -> None:
    run = begin(
        {"id": "s", "uses": "core.sleep", "with": {"until": "2027-01-01T00:00:00Z"}},
        {"id": "w", "uses": "core.wait", "with": {"signal": "go"}, "timeout": "1m30s"},
        {"id": "c", "uses": "core.workflow", "with": {"workflow": "x", "execution_id": "given"}},
    )
    waits = {slot: want.wait for slot, want in run.wants.items() if want.wait}
    assert waits["s"].moment_ms == 1_798_761_600_000
    assert (waits["w"].name, waits["w"].delay_ms) == ("go", 90_000)
    assert (run.wants["c"].kind, waits["c"].name) == ("child", "given")


def test_compensation_is_of_what_was_completed_and_can_be_undone() -> None:
    undo = {"compensate": {"uses": "core.noop"}}
    run = begin({"id": "a", **undo}, {"id": "b"}, {"id": "c", **undo}, {"id": "d", "needs": ["a"], **undo})
    done(run, "c", "b", "a")
    assert run.undo() == ["a:undo", "c:undo"]
    assert run.wants["d"].policy.on_error == "compensate"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("plain", "plain"),
        ("${input.n + 1}", 3),
        ("n = ${input.n}, ${input.s}", "n = 2, s"),
        ("$${input.n}", "${input.n}"),
        ("${ {'a': {'b': '}'}} }", {"a": {"b": "}"}}),
        ("${[1, 2].map(x, x * 2)}", [2, 4]),
        ("${duration('90s')}", "90s"),
        ("${timestamp('2027-01-01T00:00:00Z')}", "2027-01-01T00:00:00Z"),
        ("l: ${input.l}", 'l: [1,"é"]'),
    ],
)
def test_templates(text: str, value: Any) -> None:
    scope = {"input": {"n": 2, "s": "s", "l": [1, "é"]}, "vars": {}, "steps": {}, "execution": {}}
    assert render({"k": [text]}, scope) == {"k": [value]}


def test_conditions_may_have_braces() -> None:
    scope = {"input": 1, "vars": {}, "steps": {}, "execution": {}}
    assert condition("${ input == 1 }", scope) is True
    with pytest.raises(Unusable):
        condition("input.none", scope)


def test_the_interpreter_stays_small_enough_to_be_read() -> None:
    lines = Path(interpreter.__file__).read_text().splitlines()
    assert len(lines) <= 400
