from __future__ import annotations

from typing import Any

import pytest

from tests.unit.plan.player import begin, boom, plan_of, step, view
from wpa.kernel.program import Finished
from wpa.plan import check

SEEN = {"with": {"a": "${steps.a.output}", "b": "${steps.b.output}", "s": "${steps.b.status}"}}


def join(name: str, how: Any, *needs: str, **more: Any) -> dict[str, Any]:
    return step(name, *needs, join=how, **more)


def test_any_starts_with_the_first_and_the_others_go_on() -> None:
    played = begin(step("a"), step("b"), join("j", "any", "a", "b", **SEEN)).settle("a", 1)
    assert played.slots() == ["b", "j"]
    assert played.open["j"].inputs == {"a": 1, "b": None, "s": "pending"}
    played.settle("j")
    assert played.slots() == ["b"], "the execution ends when all that is wanted has ended"
    assert isinstance(played.settle("b").outcome, Finished)


def test_n_of_waits_for_so_many() -> None:
    played = begin(step("a"), step("b"), step("c"), join("j", 2, "a", "b", "c")).settle("c")
    assert played.slots() == ["a", "b"]
    assert played.settle("a").slots() == ["b", "j"]


def test_a_need_that_failed_counts_and_one_that_was_skipped_does_not() -> None:
    steps = (
        step("a", on_error="continue"),
        step("b", **{"if": "false"}),
        step("c"),
        join("j", 2, "a", "b", "c"),
    )
    played = begin(*steps).settle("a", boom()).settle("b:if")
    assert played.slots() == ["c"]
    assert played.settle("c").slots() == ["j"]


def test_a_join_that_cannot_be_reached_any_more_is_skipped_at_once() -> None:
    steps = (step("a"), step("b", **{"if": "false"}), join("j", 2, "a", "b"), step("after", "j"))
    played = begin(*steps).settle("b:if")
    assert view(played.run) == {"a": "wanted", "b": "skipped", "j": "skipped", "after": "skipped"}
    assert isinstance(played.settle("a").outcome, Finished)


def test_race_drops_what_only_leads_to_it() -> None:
    played = begin(
        step("a"), step("b"), step("b2", "b"), step("c"), step("c2", "c"), step("keep", "c"),
        join("j", "race", "a", "b2", "c2", **{"with": {"s": "${steps.b.status}"}}),
        step("end", "j"),
    ).settle("a")  # fmt: skip
    assert played.dropped == ["b"]
    assert played.slots() == ["c", "j"]
    assert played.open["j"].inputs == {"s": "skipped"}
    assert view(played.run) == {
        "a": "settled", "b": "skipped", "b2": "skipped", "c": "wanted", "c2": "skipped", "keep": "pending", "j": "wanted", "end": "pending",
    }  # fmt: skip
    assert played.settle("c").slots() == ["j", "keep"]
    assert played.settle("j").slots() == ["keep", "end"]


def test_race_drops_the_items_and_the_delays_of_loops() -> None:
    played = begin(
        step("a"),
        step("each", foreach={"in": [1, 2, 3], "concurrency": 2}, compensate={"uses": "x.undo", "with": {"x": "${item}"}}),
        step("again", repeat={"until": "false", "delay": "1s"}),
        join("j", "race", "a", "each", "again"),
    ).settle("each").settle("again")  # fmt: skip
    assert played.slots() == ["a", "each:2", "each:3", "again:delay"]
    played.settle("a")
    assert played.dropped == ["each:2", "each:3", "again:delay"]
    assert played.slots() == ["j"]
    undo = played.run.undo("each")
    assert undo is not None, "what an abandoned step has done can still be undone"
    assert undo.inputs == {"x": 1}
    assert played.run.undo("each:2") is None


def test_a_race_reaches_through_joins_that_are_decided_already() -> None:
    played = begin(
        step("a"), step("b"), join("inner", "any", "a", "b"), step("c"), join("outer", "race", "inner", "c")
    ).settle("a")  # fmt: skip
    assert played.slots() == ["b", "c", "inner"]
    played.settle("inner")
    assert played.dropped == ["b", "c"]
    assert played.slots() == ["outer"]


def test_what_loses_in_the_moment_in_which_it_would_start_is_never_heard_of() -> None:
    # "a" wins the race and starts "late", which leads nowhere else, with the same settlement.
    played = begin(step("a"), step("b"), step("late", "a"), join("j", "race", "a", "b", "late")).settle("a")
    assert "late" not in played.seen
    assert (played.dropped, played.slots()) == (["b"], ["j"])
    assert view(played.run)["late"] == "skipped"


def test_a_race_whose_own_condition_is_false_is_decided_all_the_same() -> None:
    played = begin(step("a"), step("b"), join("j", "race", "a", "b", **{"if": "false"})).settle("a")
    assert (played.dropped, played.slots()) == (["b"], ["j:if"])
    assert isinstance(played.settle("j:if").outcome, Finished)


def test_decisions_join_too() -> None:
    decision = {
        "id": "d",
        "needs": ["a", "b"],
        "join": "race",
        "switch": [{"when": "steps.a.status == 'completed'", "next": "x"}],
        "default": "y",
    }
    played = begin(step("a"), step("b"), decision, step("x"), step("y")).settle("b")
    assert played.dropped == ["a"]
    assert played.open["d"].decision == {
        "kind": "switch",
        "matched": "default",
        "taken": ["y"],
        "skipped": ["x"],
    }


def test_a_join_that_a_decision_may_choose_waits_for_the_decision() -> None:
    for n, following in ((1, ["b", "j"]), (0, ["b"])):
        played = begin(
            step("a"), step("b"), {"id": "d", "switch": [{"when": "input.n > 0", "next": "j"}]}, join("j", "any", "a", "b"), data={"n": n}
        ).settle("a")  # fmt: skip
        decision = played.open["d"].decision
        assert decision is not None
        assert decision["skipped"] == ([] if n else ["j"])
        assert played.settle("d").slots() == following


def test_a_second_end_does_not_start_a_join_again() -> None:
    played = begin(step("a"), step("b"), join("j", "any", "a", "b")).settle("a").settle("b")
    assert played.slots() == ["j"]
    assert isinstance(played.settle("j").outcome, Finished)


def test_a_variable_set_later_by_an_ancestor_is_seen_later() -> None:
    value = {"with": {"v": "${vars.v}"}}
    played = begin(
        step("a"), step("b", set={"v": 2}), join("j", "any", "a", "b", **value), step("k", "j", "b", **value), variables={"v": 1}
    ).settle("a")  # fmt: skip
    assert played.open["j"].inputs == {"v": 1}
    played.settle("j").settle("b")
    assert played.open["k"].inputs == {"v": 2}


@pytest.mark.parametrize(
    ("item", "path", "words"),
    [
        (join("j", "some", "a", "b"), "join", "must be 'all', 'any', 'race', or how many"),
        (join("j", 0, "a", "b"), "join", "must be 'all'"),
        (join("j", True, "a", "b"), "join", "must be 'all'"),
        (join("j", 3, "a", "b"), "join", "waits for 3 of its needs, but has only 2"),
        (join("j", "any", "a"), "join", "joins two or more needs, and 'j' has 1"),
        (join("j", "race"), "join", "and 'j' has 0"),
    ],
)
def test_each_problem_has_its_path_and_words(item: dict[str, Any], path: str, words: str) -> None:
    found = check({"id": "p", "version": "1", "steps": [step("a"), step("b"), item]})
    assert [problem.path for problem in found] == [f"$.steps[2].{path}"], found
    assert words in found[0].message


def test_two_thousand_nested_races_are_compiled_and_run_in_a_moment() -> None:
    steps = [step("s0"), step("s1")]
    for number in range(2, 2_000, 2):
        steps += [join(f"s{number}", "race", f"s{number - 2}", f"s{number - 1}"), step(f"s{number + 1}")]
    assert plan_of(*steps).nodes[-2].rivals.bit_count() == 1_998
    played = begin(*steps)
    played.settle("s0")
    assert isinstance(played.play().outcome, Finished)
