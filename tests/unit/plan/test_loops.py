from __future__ import annotations

import time
from typing import Any

import pytest

from tests.unit.plan.player import Player, begin, boom, plan_of, step, view
from wpa.kernel.program import Failed, Finished, Wait
from wpa.plan import check


def each(name: str = "a", *needs: str, items: Any = "input.items", **more: Any) -> dict[str, Any]:
    options = more.pop("options", {})
    return step(name, *needs, foreach={"in": items, **options}, **more)


def again(name: str = "a", **more: Any) -> dict[str, Any]:
    return step(name, repeat=more.pop("repeat"), **more)


ITEM = {"with": {"x": "${item}", "i": "${index}"}}


# -- foreach ---------------------------------------------------------------------------------


def test_items_run_in_order_so_many_at_a_time_and_the_output_is_in_the_order_of_the_list() -> None:
    played = begin(each(options={"concurrency": 2}, **ITEM), data={"items": ["p", "q", "r", "s"]})
    assert played.slots() == ["a", "a:2"]
    assert played.open["a:2"].inputs == {"x": "q", "i": 1}
    played.settle("a:2", "Q")
    assert [want.slot for want in played.latest] == ["a:3"]
    played.settle("a:3", "R").settle("a", "P")
    assert view(played.run) == {"a": "wanted"}
    assert played.run.progress().percentage == 75
    played.settle("a:4", "S")
    assert played.output == {"a": ["P", "Q", "R", "S"]}
    assert view(played.run) == {"a": "settled"}
    assert played.run.progress().completed == 1


def test_an_empty_list_is_recorded_as_a_decision_and_gives_an_empty_list() -> None:
    played = begin(
        each(set={"seen": "${steps.a.output}"}), step("b", "a"), data={"items": []}, output="${vars.seen}"
    )
    assert played.open["a:foreach"].decision == {"kind": "foreach", "items": 0}
    played.settle("a:foreach")
    assert played.slots() == ["b"]
    assert played.play().output == []


def test_the_item_has_the_name_that_was_given() -> None:
    played = begin(each(items=[{"n": 5}], options={"as": "order"}, **{"with": {"n": "${order.n}"}}))
    assert played.open["a"].inputs == {"n": 5}


def test_items_may_be_given_by_expressions_in_a_list() -> None:
    played = begin(each(items=["x", "${input.y}"], **ITEM), data={"y": 7})
    assert played.open["a:2"].inputs == {"x": 7, "i": 1}


@pytest.mark.parametrize(
    ("items", "options", "words"),
    [
        ("input.items.x", {}, "input.items.x"),
        ("input.number", {}, "gives 5; foreach needs a list"),
        ("input.items", {"max": 2}, "gives 3 items; the most is 2"),
    ],
)
def test_what_is_no_good_list_is_a_fault_of_the_step(items: str, options: dict[str, Any], words: str) -> None:
    played = begin(
        each(items=items, options={**options, "on_error": "continue"}, on_error="continue"),
        step("b", "a", **{"with": {"s": "${steps.a.status}"}}),
        data={"items": [1, 2, 3], "number": 5},
    )
    fault = played.open["a"].fault
    assert fault is not None
    assert "$.steps[0].foreach.in" in fault.message
    assert words in fault.message
    assert played.settle("a").open["b"].inputs == {"s": "failed"}


def test_more_than_ten_thousand_items_are_a_fault() -> None:
    fault = begin(each(), data={"items": [0] * 10_001}).open["a"].fault
    assert fault is not None
    assert "gives 10001 items; the most is 10000" in fault.message


def test_with_continue_the_others_go_on_and_the_lost_ones_are_named_in_order() -> None:
    played = begin(
        each(options={"on_error": "continue"}),
        step("b", "a", **{"with": {"out": "${steps.a.output}", "errors": "${steps.a.errors}"}}),
        data={"items": [1, 2, 3]},
    )
    assert played.open["a"].policy.on_error == "continue"
    played.settle("a:3", boom("third")).settle("a", boom("first")).settle("a:2", "ok")
    assert played.open["b"].inputs == {
        "out": [None, "ok", None],
        "errors": [
            {"index": 0, "type": "Boom", "message": "first"},
            {"index": 2, "type": "Boom", "message": "third"},
        ],
    }
    assert played.run.progress().failed == 0


def test_with_fail_the_kernel_is_told_so_for_each_item() -> None:
    played = begin(each(), data={"items": [1, 2]})
    assert {want.policy.on_error for want in played.open.values()} == {"fail"}


def test_a_step_that_may_fail_fails_with_its_first_item_and_drops_the_others() -> None:
    played = begin(
        each(options={"concurrency": 3}, on_error="continue"),
        step("b", "a", **{"with": {"e": "${steps.a.error}"}}),
        data={"items": [1, 2, 3, 4]},
    )
    played.settle("a:2", boom("no"))
    assert played.dropped == ["a", "a:3"]
    assert played.open["b"].inputs == {"e": {"type": "Boom", "message": "item 1: no"}}
    assert played.slots() == ["b"]


def test_what_is_dropped_at_the_very_end_is_told_too() -> None:
    played = begin(each(on_error="continue"), data={"items": [1, 2]}).settle("a", boom())
    assert isinstance(played.outcome, Finished)
    assert played.dropped == ["a:2"]


def test_an_item_whose_inputs_cannot_be_computed_is_a_fault_of_that_item() -> None:
    played = begin(
        each(options={"on_error": "continue"}, **{"with": {"n": "${item.n}"}}), data={"items": [{}, {"n": 1}]}
    )
    assert played.open["a"].fault is not None
    played.settle("a").settle("a:2", 1)
    assert played.output == {"a": [None, 1]}


def test_if_is_evaluated_once_for_the_whole_step() -> None:
    played = begin(each(**{"if": "size(input.items) > 5"}), data={"items": [1]})
    assert played.slots() == ["a:if"]
    assert isinstance(played.settle("a:if").outcome, Finished)


def test_foreach_works_with_waiting_steps() -> None:
    played = begin(each(**{"with": {"for": "${item}s"}}) | {"uses": "core.sleep"}, data={"items": [1, 2]})
    assert [want.wait for want in played.open.values()] == [Wait(delay_ms=1_000), Wait(delay_ms=2_000)]
    assert {want.kind for want in played.open.values()} == {"timer"}


def test_each_completed_item_is_undone_with_what_it_gave() -> None:
    undo = {"uses": "x.undo", "with": {"x": "${item}", "i": "${index}", "o": "${output}", "n": "${input.n}"}}
    played = begin(
        each(options={"concurrency": 2, "on_error": "continue"}, compensate=undo),
        data={"items": ["p", "q", "r"], "n": 1},
    )
    played.settle("a:2", "Q").settle("a", boom())
    found = played.run.undo("a:2")
    assert found is not None
    assert (found.slot, found.step) == ("a:2:undo", "a")
    assert found.inputs == {"x": "q", "i": 1, "o": "Q", "n": 1}
    assert played.run.undo("a") is None
    assert played.run.undo("a:3") is None


def test_an_item_sees_the_plan_as_it_was_when_the_step_started() -> None:
    steps = (
        step("x", set={"v": "${steps.x.output}"}),
        step("y"),
        each(
            "j",
            "x",
            "y",
            items=[1, 2],
            options={"concurrency": 1},
            join="any",
            **{"with": {"v": "${vars.v}"}},
        ),
    )
    played = Player(plan_of(*steps, variables={"v": 0})).settle("y")
    assert played.open["j"].inputs == {"v": 0}
    played.settle("x", 5).settle("j")
    assert played.open["j:2"].inputs == {"v": 0}


def seconds(count: int) -> float:
    """How long a ``foreach`` of so many items takes, with an input that is as large."""
    items = [{"n": n, "text": "x" * 20} for n in range(count)]
    steps = each(options={"concurrency": 50}, **{"with": {"n": "${item.n}", "p": "${input.prefix}"}})
    plan = plan_of(steps, output="${size(steps.a.output)}")
    started = time.thread_time()
    played = Player(plan, {"items": items, "prefix": "p"})
    for number in range(count):
        played.settle(f"a:{number + 1}" if number else "a", number)
    assert played.output == count
    return time.thread_time() - started


def test_ten_thousand_items_cost_linear_time() -> None:
    seconds(100)
    small, large = min(seconds(2_000) for _ in range(2)), seconds(10_000)
    assert large < small * 5 * 2.5, f"{large:.2f} s for five times as much as {small:.2f} s"


# -- repeat ----------------------------------------------------------------------------------


def test_repeat_until_runs_round_after_round_and_gives_the_last_output() -> None:
    played = begin(
        again(repeat={"until": "output.done"}, **{"with": {"i": "${index}", "before": "${output}"}}),
        step("b", "a", **{"with": {"o": "${steps.a.output}"}}),
    )
    assert played.open["a"].inputs == {"i": 0, "before": None}
    played.settle("a", {"done": False})
    assert played.open["a:2"].inputs == {"i": 1, "before": {"done": False}}
    played.settle("a:2", {"done": False})
    assert view(played.run)["a"] == "wanted"
    played.settle("a:3", {"done": True})
    assert played.slots() == ["b"]
    assert played.open["b"].inputs == {"o": {"done": True}}
    assert played.run.progress().completed == 1


def test_repeat_while_goes_on_while_it_is_true() -> None:
    played = begin(again(repeat={"while": "index < 2"}))
    assert played.play().output == {"a": {}}
    assert played.seen == {"a", "a:2", "a:3"}


def test_the_rounds_are_apart_by_the_delay() -> None:
    played = begin(again(repeat={"until": "index == 2", "delay": "5s"}))
    order = []
    while played.open:
        (slot,) = played.slots()
        want = played.open[slot]
        order.append(slot)
        if want.kind == "timer":
            assert want.wait == Wait(delay_ms=5_000)
        played.settle(slot)
    assert order == ["a", "a:delay", "a:2", "a:delay:2", "a:3"]


def test_too_many_rounds_fail_the_step() -> None:
    played = begin(
        again(repeat={"until": "false", "max": 2}, on_error="continue"),
        step("b", "a", **{"with": {"e": "${steps.a.error.type}"}}),
    )
    played.settle("a").settle("a:2")
    fault = played.open["a:3"].fault
    assert fault is not None
    assert (fault.type, fault.retryable) == ("RepeatExhausted", False)
    assert "after 2 rounds `until: false` did not become true" in fault.message
    assert played.settle("a:3").open["b"].inputs == {"e": "RepeatExhausted"}


def test_a_condition_that_fails_or_is_no_boolean_fails_the_step() -> None:
    for condition, words in (("output.nope", "nope"), ("output", "must be true or false")):
        played = begin(again(repeat={"until": condition})).settle("a", {})
        fault = played.open["a:2"].fault
        assert fault is not None
        assert fault.type == "ExpressionError"
        assert "$.steps[0].repeat.until" in fault.message
        assert words in fault.message


def test_a_round_that_gives_up_ends_a_step_that_may_fail() -> None:
    played = begin(again(repeat={"until": "false"}, on_error="continue"), step("b", "a"))
    played.settle("a").settle("a:2", boom())
    assert played.slots() == ["b"]
    assert played.run.progress().failed == 1


def test_each_completed_round_is_undone_with_what_it_gave() -> None:
    undo = {"uses": "x.undo", "with": {"o": "${output}", "i": "${index}"}}
    played = begin(again(repeat={"until": "index == 1", "delay": "1s"}, compensate=undo), step("b", "a"))
    played.settle("a", "first").settle("a:delay").settle("a:2", "second")
    found = {slot: played.run.undo(slot) for slot in ("a", "a:delay", "a:2")}
    assert {slot: want.inputs for slot, want in found.items() if want} == {
        "a": {"o": "first", "i": 0},
        "a:2": {"o": "second", "i": 1},
    }


# -- what is wrong ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("item", "path", "words"),
    [
        (each(items=5), "foreach.in", "must be a list, or an expression"),
        (each(items="inptu.x"), "foreach.in", "undeclared reference"),
        (each(items="steps.a.output"), "foreach.in", "its own output"),
        (step("a", foreach={}), "foreach.in", "missing"),
        (each(options={"concurency": 1}), "foreach.concurency", "did you mean 'concurrency'?"),
        (each(options={"concurrency": 0}), "foreach.concurrency", "greater than or equal to 1"),
        (each(options={"max": 10_001}), "foreach.max", "less than or equal to 10000"),
        (each(options={"as": "input"}), "foreach.as", "meaning of its own"),
        (each(options={"as": "for"}), "foreach.as", "meaning of its own"),
        (each(options={"as": "a-b"}), "foreach.as", "not a valid name"),
        (each(options={"as": "order"}, **ITEM), "with.x", "undeclared reference to 'item'"),
        (step("a", **ITEM), "with.x", "undeclared reference to 'item'"),
        (each(**{"if": "item > 1"}), "if", "undeclared reference to 'item'"),
        (again(repeat={}), "repeat", "one of 'until' and 'while'"),
        (again(repeat={"until": "true", "while": "true"}), "repeat", "one of 'until' and 'while'"),
        (again(repeat={"until": "true", "max": 100_001}), "repeat.max", "less than or equal to 100000"),
        (again(repeat={"until": "true", "delay": "x"}), "repeat.delay", "not a duration"),
        (again(repeat={"until": "steps.a.output"}), "repeat.until", "its own output"),
        (again(repeat={"until": "true"}, foreach={"in": []}), "repeat", "either foreach or repeat"),
        (step("a", **{"with": {"x": "${steps.b.errors}"}}, needs=["b"]), "with.x", "'steps.b.errors' is unknown"),
    ],
)  # fmt: skip
def test_each_problem_has_its_path_and_words(item: dict[str, Any], path: str, words: str) -> None:
    found = check({"id": "p", "version": "1", "steps": [item, step("b")]})
    assert f"$.steps[0].{path}" in [problem.path for problem in found], found
    assert any(words in str(problem) for problem in found if problem.path == f"$.steps[0].{path}"), found


def test_sets_that_fail_fail_the_run() -> None:
    played = begin(each(items=[1], set={"v": "${steps.a.output[5]}"}))
    assert isinstance(played.settle("a").outcome, Failed)
