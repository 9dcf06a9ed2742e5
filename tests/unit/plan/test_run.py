from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from wpa.kernel.program import ExecutionInfo, Failed, Finished, Settled, Waiting, Want
from wpa.model.events import Failure
from wpa.plan import load
from wpa.plan.run import PlanRun

INFO = ExecutionInfo(id="x1", tenant="t", workflow="p", version="1", started_at="2026-11-20T10:00:00.000Z")


def begin(
    *steps: dict[str, Any], data: Any = None, variables: dict[str, Any] | None = None, **more: Any
) -> PlanRun:
    return load({"id": "p", "version": "1", "steps": list(steps), **more}).begin(
        data or {}, variables or {}, INFO
    )


def step(name: str, *needs: str, **more: Any) -> dict[str, Any]:
    return {"id": name, "uses": "core.echo", "needs": list(needs), **more}


def wants(run: PlanRun) -> list[Want]:
    outcome = run.poll()
    return list(outcome.wants) if isinstance(outcome, Waiting) else []


def slots(run: PlanRun) -> list[str]:
    return [want.slot for want in wants(run)]


def done(run: PlanRun, slot: str, value: Any = None) -> None:
    run.settle(Settled(slot=slot, status="completed", value=value))


def test_roots_are_wanted_at_once_in_definition_order_and_only_once() -> None:
    run = begin(step("b"), step("a"), step("c", "a"))
    assert slots(run) == ["b", "a"]
    assert slots(run) == []


def test_a_join_waits_for_all_and_runs_when_some_were_skipped() -> None:
    run = begin(step("a"), step("b", **{"if": "false"}), step("j", "a", "b"))
    first = wants(run)
    assert [want.slot for want in first] == ["a", "b:if"]
    assert first[1].decision == {"kind": "if", "result": False, "skipped": ["b"]}
    run.settle(Settled(slot="b:if", status="decided", value=first[1].decision))
    assert slots(run) == []
    done(run, "a")
    assert slots(run) == ["j"]


def test_a_step_whose_needs_were_all_skipped_is_skipped_and_so_on() -> None:
    run = begin(step("a", **{"if": "false"}), step("b", "a"), step("c", "b"), output="${steps.c.status}")
    want = wants(run)[0]
    run.settle(Settled(slot=want.slot, status="decided", value=want.decision))
    outcome = run.poll()
    assert isinstance(outcome, Finished)
    assert outcome.output == "skipped"
    assert run.progress().percentage == 100


def test_a_join_knows_skipped_from_failed() -> None:
    run = begin(
        step("a", on_error="continue"),
        step("j", "a", **{"with": {"s": "${steps.a.status}", "e": "${steps.a.error.type}"}}),
    )
    slots(run)
    run.settle(Settled(slot="a", status="failed", error=Failure(type="Boom", message="")))
    assert wants(run)[0].inputs == {"s": "failed", "e": "Boom"}


DECISION = (
    {"id": "d", "switch": [{"when": "input.n > 10", "next": ["big", "log"]}, {"when": "input.n > 5", "next": "mid"}], "default": "small"},
    step("big"), step("log"), step("mid"), step("small"), step("end", "big", "mid", "small"),
)  # fmt: skip


def test_a_decision_takes_the_first_branch_that_is_true() -> None:
    for number, taken, matched in ((20, ["big", "log"], 0), (7, ["mid"], 1), (1, ["small"], "default")):
        run = begin(*DECISION, data={"n": number})
        want = wants(run)[0]
        assert (want.kind, want.slot) == ("decision", "d")
        assert want.decision is not None
        assert (want.decision["taken"], want.decision["matched"]) == (taken, matched)
        assert not set(want.decision["taken"]) & set(want.decision["skipped"])
        run.settle(Settled(slot="d", status="decided", value=want.decision))
        assert slots(run) == taken


def test_a_replay_goes_by_the_recorded_decision_not_by_a_new_one() -> None:
    run = begin(*DECISION, data={"n": 1})
    slots(run)
    run.settle(Settled(slot="d", status="decided", value={"taken": ["mid"]}))
    assert slots(run) == ["mid"]


def test_no_branch_and_no_default_skips_all_of_them() -> None:
    run = begin({"id": "d", "switch": [{"when": "false", "next": "a"}]}, step("a"), step("b", "a"))
    want = wants(run)[0]
    assert want.decision == {"kind": "switch", "matched": None, "taken": [], "skipped": ["a"]}
    run.settle(Settled(slot="d", status="decided", value=want.decision))
    assert isinstance(run.poll(), Finished)


def test_what_a_decision_skips_does_not_depend_on_what_hears_first_that_a_need_has_ended() -> None:
    choice = {"id": "d", "switch": [{"when": "false", "next": "x"}], "needs": ["a"]}
    target = step("x", "a")
    for steps in ((choice, target), (target, choice)):
        run = begin(step("a"), *steps)
        assert slots(run) == ["a"]
        done(run, "a")
        (want,) = wants(run)
        assert want.decision == {"kind": "switch", "matched": None, "taken": [], "skipped": ["x"]}


def test_a_target_of_two_decisions_runs_if_either_chose_it() -> None:
    run = begin(
        {"id": "d1", "switch": [{"when": "false", "next": "t"}]},
        {"id": "d2", "switch": [{"when": "true", "next": "t"}]},
        step("t"),
    )
    for want in wants(run):
        run.settle(Settled(slot=want.slot, status="decided", value=want.decision))
    assert slots(run) == ["t"]


def test_variables_are_those_of_the_ancestors_whatever_the_order_of_completion() -> None:
    steps = (
        step("a", set={"v": "${steps.a.output}"}),
        step("b", set={"v": "${steps.b.output}"}),
        step("c", "a", **{"with": {"v": "${vars.v}"}}),
    )
    for order in (("a", "b"), ("b", "a")):
        run = begin(*steps, variables={"v": 0})
        slots(run)
        found = {}
        for name in order:
            done(run, name, f"by {name}")
            found |= {want.slot: want.inputs for want in wants(run)}
        assert found["c"] == {"v": "by a"}


def test_variables_are_declared_then_given_then_set() -> None:
    run = begin(step("a", **{"with": {"x": "${vars.x}", "y": "${vars.y}"}}), variables={"y": 2}, data={})
    assert run is not None
    plan = load(
        {
            "id": "p",
            "version": "1",
            "variables": {"x": 1, "y": 1},
            "steps": [step("a", **{"with": {"x": "${vars.x}", "y": "${vars.y}"}})],
        }
    )
    assert wants(plan.begin({}, {"y": 2}, INFO))[0].inputs == {"x": 1, "y": 2}


def test_an_input_that_cannot_be_computed_is_a_fault_of_the_step() -> None:
    fault = wants(begin(step("a", **{"with": {"x": "${input.nope}"}})))[0].fault
    assert fault is not None
    assert (fault.type, fault.retryable) == ("ExpressionError", False)
    assert "$.steps[0].with.x" in fault.message


def test_a_condition_that_is_no_boolean_is_a_fault() -> None:
    fault = wants(begin(step("a", **{"if": "input.n"}), data={"n": 1}))[0].fault
    assert fault is not None
    assert "must be true or false" in fault.message


def test_an_output_that_cannot_be_computed_fails_the_run() -> None:
    run = begin(step("a"), output="${steps.a.output.nope}")
    slots(run)
    done(run, "a", {})
    assert isinstance(run.poll(), Failed)


def test_the_default_output_is_that_of_the_last_steps() -> None:
    run = begin(step("a"), step("b", "a"), step("c", "a"))
    slots(run)
    for name in "abc":
        done(run, name, name.upper())
        slots(run)
    outcome = run.poll()
    assert isinstance(outcome, Finished)
    assert outcome.output == {"b": "B", "c": "C"}


def test_only_completed_steps_with_a_compensation_can_be_undone() -> None:
    run = begin(
        step("a", compensate={"uses": "core.noop", "with": {"id": "${steps.a.output.id}"}}), step("b", "a")
    )
    slots(run)
    assert run.undo("a") is None
    done(run, "a", {"id": 5})
    undo = run.undo("a")
    assert undo is not None
    assert (undo.slot, undo.uses, undo.inputs) == ("a:undo", "core.noop", {"id": 5})
    assert undo.policy.retry.max_attempts == 10
    assert run.undo("b") is None


def test_on_error_is_compensate_where_the_plan_has_compensations() -> None:
    with_undo = begin(step("a", compensate={"uses": "core.noop"}), step("b"))
    assert {want.policy.on_error for want in wants(with_undo)} == {"compensate"}
    assert {want.policy.on_error for want in wants(begin(step("a"), step("b")))} == {"fail"}


@st.composite
def graphs(draw: st.DrawFn) -> list[dict[str, Any]]:
    count = draw(st.integers(1, 9))
    steps = []
    for index in range(count):
        needs = (
            draw(st.lists(st.sampled_from([f"s{n}" for n in range(index)]), unique=True, max_size=3))
            if index
            else []
        )
        more = {"if": draw(st.sampled_from(["true", "false"]))} if draw(st.booleans()) else {}
        steps.append(step(f"s{index}", *needs, **more))
    return steps


@given(graphs(), st.randoms())
def test_every_run_ends_and_a_replay_in_the_same_order_wants_the_same(
    steps: list[dict[str, Any]], random: Any
) -> None:
    first = begin(*steps)
    waiting: list[Want] = []
    history: list[tuple[Settled, list[str]]] = []
    waiting += wants(first)
    order = [want.slot for want in waiting]
    while waiting:
        want = waiting.pop(random.randrange(len(waiting)))
        status = "completed" if want.kind == "step" else "decided"
        settled = Settled(slot=want.slot, status=status, value=want.decision)
        first.settle(settled)
        new = wants(first)
        history.append((settled, [new_want.slot for new_want in new]))
        waiting += new
    assert isinstance(first.poll(), Finished)
    assert first.progress().percentage == 100
    replay = begin(*steps)
    assert slots(replay) == order
    for settled, following in history:
        replay.settle(settled)
        assert slots(replay) == following
    assert replay.poll() == first.poll()
