"""A recorded run keeps every promise; falsified in any of these ways, it breaks one of I6 to I12.

The promises before are in ``test_journals.py``.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.checker.facts import Call, Fault, Message
from tests.checker.judge import PROMISES, judge
from tests.unit.checker import test_journals
from tests.unit.checker.tampering import BOUNDS, Falsify, Run, broken, moved, names


def test_the_run_as_it_was_recorded_keeps_every_promise() -> None:
    assert Run().broken() == set()


# -- I6 --------------------------------------------------------------------------------------


def a_snapshot_that_differs(run: Run) -> None:
    run.snapshot("line-0", lambda state: state["slots"]["a"].update(attempt=2))


def a_snapshot_with_another_output(run: Run) -> None:
    run.snapshot("line-0", lambda state: state.update(output={"said": "other"}))


def a_snapshot_of_a_place_that_is_none(run: Run) -> None:
    run.snapshot("line-0", lambda state: state.update(position=1))


def a_snapshot_of_the_future(run: Run) -> None:
    run.snapshot("line-0", lambda state: state.update(seq=99))


def a_snapshot_that_was_never_renewed(run: Run) -> None:
    run.snapshot("line-0", lambda state: state.update(seq=1))


def an_end_without_a_snapshot(run: Run) -> None:
    run.forget("line-0")


def a_status_that_lies(run: Run) -> None:
    run.status("line-0", status="RUNNING")


def a_status_with_another_output(run: Run) -> None:
    run.status("line-0", output={"said": "other"})


def a_status_that_forgets_what_is_undone(run: Run) -> None:
    run.status("saga-4", undone=["c"])


# -- I7 --------------------------------------------------------------------------------------


def a_timer_that_is_early(run: Run) -> None:
    event = run.event("sleeper-6", "step_completed", slot="nap")
    run.stored(event, -500)


def a_timer_that_is_late(run: Run) -> None:
    run.facts.faults.clear()
    for event in run.journal("sleeper-6")[run.event("sleeper-6", "step_completed", slot="nap").seq - 1 :]:
        run.stored(event, 5_000)


def a_timer_that_is_late_after_a_fault(run: Run) -> None:
    event = run.event("sleeper-6", "step_completed", slot="nap")
    run.facts.faults.append(Fault("away", event.stored_ms - 100, event.stored_ms + 3_000))
    for later in run.journal("sleeper-6")[event.seq - 1 :]:
        run.stored(later, 13_000)


def a_time_out_that_is_early(run: Run) -> None:
    run.stored(run.event("waiter-7", "step_completed", timed_out=True), -5_000)


def an_alarm_that_rings_early(run: Run) -> None:
    run.stored(run.event("sleeper-6", "resumed", reason="timer"), -5_000)


def a_retry_that_is_early(run: Run) -> None:
    event = run.event("stubborn-2", "step_failed", slot="try", attempt=2)
    run.data(event, started_at=moved(event.data["started_at"], -40))


def a_wait_that_is_overdue(run: Run) -> None:
    run.facts.taken_ms += 3 * 3_600_000


# -- I8 --------------------------------------------------------------------------------------


def an_effect_in_a_pause(run: Run) -> None:
    paused, resumed = run.event("paused-9", "paused"), run.event("paused-9", "resumed")
    run.facts.faults.clear()
    run.put(paused, replace(paused, stored_ms=paused.stored_ms - 5_000))
    run.change_effect(run.effect("paused-9:b:1"), at_ms=resumed.stored_ms - 100)


def a_slot_that_is_opened_in_a_pause(run: Run) -> None:
    waiting, done = run.event("paused-9", "waiting"), run.event("paused-9", "step_completed", 0)
    run.put(waiting, replace(done, sequence=waiting.sequence, body={**done.body, "seq": waiting.seq}))


def an_effect_in_a_pause_that_never_ends(run: Run) -> None:
    run.facts.faults.clear()
    run.cut(run.event("paused-9", "resumed"))


# -- I9 --------------------------------------------------------------------------------------


def a_canary_in_an_event(run: Run) -> None:
    run.data(run.event("line-0", "completed"), output="canary-of-zeta-0815")


def a_canary_in_a_snapshot(run: Run) -> None:
    run.snapshot("line-0", lambda state: state.update(metadata={"user_id": "canary-of-zeta-0815"}))


def a_canary_in_a_status(run: Run) -> None:
    run.status("line-0", input=["canary-of-zeta-0815"])


def a_canary_in_a_dead_letter(run: Run) -> None:
    letter = Message("workflow.dlq.acme", 1, 1, "no json", {"Wpa-Reason": "canary-of-zeta-0815?"})
    run.facts.letters.append(letter)


def a_canary_in_a_payload(run: Run) -> None:
    run.facts.payloads["acme/x/y"] = "canary-of-zeta-0815"


# -- I10 -------------------------------------------------------------------------------------


def another_branch(run: Run) -> None:
    event = run.event("branches-1", "decision_point", slot="check")
    run.data(event, decision={**event.data["decision"], "taken": ["much"]})


def another_output(run: Run) -> None:
    run.data(run.event("line-0", "completed"), output={"said": "other", "to": "acme"})


def another_input(run: Run) -> None:
    run.data(run.event("line-0", "step_completed", slot="c"), output={"word": "other", "n": 1})


def a_step_that_was_never_wanted(run: Run) -> None:
    event = run.event("branches-1", "decision_point", slot="check")
    run.data(event, next=[*event.data["next"], "much"])


def too_many_at_a_time(run: Run) -> None:
    run.plan("many")["max_parallel"] = 2


def too_few_at_a_time(run: Run) -> None:
    run.plan("many")["max_parallel"] = 4


def the_least_urgent_first(run: Run) -> None:
    plan = run.plan("many")
    plan["steps"][0]["priority"], plan["steps"][2]["priority"] = 9, 0


def one_attempt_too_many(run: Run) -> None:
    run.plan("stubborn")["steps"][0]["retry"] = {"max_attempts": 2}


def one_attempt_too_few(run: Run) -> None:
    run.plan("stubborn")["steps"][1]["retry"]["max_attempts"] = 3


def a_backoff_that_is_too_short(run: Run) -> None:
    run.plan("stubborn")["steps"][0]["retry"]["backoff"]["initial"] = "1s"


def another_on_error(run: Run) -> None:
    run.data(run.event("stubborn-2", "step_failed", slot="lose", final=True), on_error="fail")


def the_loser_of_a_race_that_goes_on(run: Run) -> None:
    event = next(one for one in run.journal("race-5") if "dropped" in one.data)
    run.data(event, dropped=[], next=[*event.data["next"], *event.data["dropped"]])


def a_moment_that_is_another(run: Run) -> None:
    event = run.event("sleeper-6", "step_completed", slot="a")
    waits = {"nap": {**event.data["waits"]["nap"], "until": event.body["timestamp"]}}
    run.data(event, waits=waits)


def a_signal_of_another_name(run: Run) -> None:
    event = run.event("waiter-7", "started")
    waits = {**event.data["waits"], "go": {**event.data["waits"]["go"], "name": "other"}}
    run.data(event, waits=waits)


def a_child_with_another_input(run: Run) -> None:
    run.data(run.event("parent-8-sub", "started"), input={"word": "other"})


def rest_before_all_is_done(run: Run) -> None:
    run.plan("sleeper")["steps"].append({"id": "beside", "uses": "core.noop"})


def an_input_that_the_status_shows_otherwise(run: Run) -> None:
    for row in next(one for one in run.facts.statuses if one.execution == "line-0").document["steps"]:
        row["input"] = {"seconds": 7}


# -- I11 -------------------------------------------------------------------------------------


def a_second_effect_of_an_at_most_once_step(run: Run) -> None:
    run.facts.effects.append(replace(run.effect("once-10:pay:1"), attempt=2))


def a_result_without_an_effect(run: Run) -> None:
    run.facts.effects = [one for one in run.facts.effects if one.key != "line-0:a:1"]


def another_key_for_another_attempt(run: Run) -> None:
    effect = run.effect("line-0:a:1")
    run.facts.effects.append(replace(effect, key="line-0:a:1:2", attempt=2))


def the_key_of_another_step(run: Run) -> None:
    run.change_effect(run.effect("line-0:a:1"), step="b")


# -- I12 -------------------------------------------------------------------------------------


def outliving(run: Run) -> None:
    """The first child ends long after its parent's last event, and after the worker has come back."""
    run.facts.taken_ms += 60_000
    run.stored(run.event("parent-8-sub", "completed"), 40_000)


def a_child_that_takes_too_long_and_lives_on(run: Run) -> None:
    outliving(run)
    run.data(run.event("parent-8", "step_completed", slot="sub"), signals=[], timed_out=True)


def a_child_that_outlives_its_parent(run: Run) -> None:
    outliving(run)
    end = run.event("parent-8", "signalled", 1)
    run.cut(run.event("parent-8", "step_completed", slot="sub"))
    run.put(end, replace(end, body={**end.body, "event": "workflow_cancelled"}))


FALSIFIED: list[tuple[str, Falsify]] = [
    ("I6", a_snapshot_that_differs),
    ("I6", a_snapshot_with_another_output),
    ("I6", a_snapshot_of_a_place_that_is_none),
    ("I6", a_snapshot_of_the_future),
    ("I6", a_snapshot_that_was_never_renewed),
    ("I6", an_end_without_a_snapshot),
    ("I6", a_status_that_lies),
    ("I6", a_status_with_another_output),
    ("I6", a_status_that_forgets_what_is_undone),
    ("I7", a_timer_that_is_early),
    ("I7", a_timer_that_is_late),
    ("I7", a_timer_that_is_late_after_a_fault),
    ("I7", a_time_out_that_is_early),
    ("I7", an_alarm_that_rings_early),
    ("I7", a_retry_that_is_early),
    ("I7", a_wait_that_is_overdue),
    ("I8", an_effect_in_a_pause),
    ("I8", a_slot_that_is_opened_in_a_pause),
    ("I8", an_effect_in_a_pause_that_never_ends),
    ("I9", a_canary_in_an_event),
    ("I9", a_canary_in_a_snapshot),
    ("I9", a_canary_in_a_status),
    ("I9", a_canary_in_a_dead_letter),
    ("I9", a_canary_in_a_payload),
    ("I10", another_branch),
    ("I10", another_output),
    ("I10", another_input),
    ("I10", a_step_that_was_never_wanted),
    ("I10", too_many_at_a_time),
    ("I10", too_few_at_a_time),
    ("I10", the_least_urgent_first),
    ("I10", one_attempt_too_many),
    ("I10", one_attempt_too_few),
    ("I10", a_backoff_that_is_too_short),
    ("I10", another_on_error),
    ("I10", the_loser_of_a_race_that_goes_on),
    ("I10", a_moment_that_is_another),
    ("I10", a_signal_of_another_name),
    ("I10", a_child_with_another_input),
    ("I10", rest_before_all_is_done),
    ("I10", an_input_that_the_status_shows_otherwise),
    ("I11", a_second_effect_of_an_at_most_once_step),
    ("I11", a_result_without_an_effect),
    ("I11", another_key_for_another_attempt),
    ("I11", the_key_of_another_step),
    ("I12", a_child_that_takes_too_long_and_lives_on),
    ("I12", a_child_that_outlives_its_parent),
]


@pytest.mark.parametrize(("promise", "falsify"), FALSIFIED, ids=names(FALSIFIED))
def test_what_is_falsified_is_found(promise: str, falsify: Falsify) -> None:
    run = Run()
    falsify(run)
    assert promise in run.broken()


def test_every_promise_has_its_falsifications() -> None:
    assert {promise for promise, _ in [*FALSIFIED, *test_journals.FALSIFIED]} == set(PROMISES)


# -- what is no violation --------------------------------------------------------------------


def test_a_start_of_which_nobody_knows_may_have_happened_or_not() -> None:
    run = Run()
    calls = run.facts.calls
    calls.append(Call("start", "acme", "never", "unknown", workflow="line"))
    for index, call in enumerate(calls):
        if call.kind == "start" and call.execution == "once-10":
            calls[index] = replace(call, outcome="unknown")
    assert run.broken() == set()


def test_a_published_start_may_be_refused_but_not_as_a_conflict_with_itself() -> None:
    run = Run()
    run.facts.calls.append(Call("start", "acme", "bad", "ok", via="publish", workflow="line"))
    letter = Message("workflow.dlq.acme", 1, 1, {"execution_id": "bad"}, {"Wpa-Code": "invalid_input"})
    run.facts.letters.append(letter)
    assert run.broken() == set()
    run.facts.letters[-1] = replace(letter, headers={"Wpa-Code": "conflict"})
    assert run.broken() == {"I1"}


def test_a_child_may_live_on_that_has_heard_of_it_or_is_to_be_abandoned() -> None:
    run = Run()
    a_child_that_outlives_its_parent(run)
    last = run.event("parent-8-sub", "step_completed", slot="c")
    run.put(last, replace(last, body={**last.body, "event": "workflow_cancel_requested"}))
    assert "I12" not in run.broken()
    run = Run()
    a_child_that_outlives_its_parent(run)
    begun = run.event("parent-8", "started")
    waits = {slot: {**about, "abandon": True} for slot, about in begun.data["waits"].items()}
    run.data(begun, waits=waits)
    assert "I12" not in run.broken()


def test_what_was_sent_to_a_queue_before_a_pause_may_begin_in_it() -> None:
    for waits, broken_too in (({}, True), ({"a": {"kind": "remote", "name": "gpu"}}, False)):
        run = Run()
        run.facts.faults.clear()
        paused, resumed = run.event("paused-9", "paused"), run.event("paused-9", "resumed")
        run.put(paused, replace(paused, stored_ms=paused.stored_ms - 5_000))
        run.data(run.event("paused-9", "started"), waits=waits)
        run.change_effect(run.effect("paused-9:a:1"), at_ms=resumed.stored_ms - 100)
        assert ("I8" in run.broken()) is broken_too


def test_a_start_that_was_refused_says_nothing_of_another_one_under_its_name() -> None:
    run = Run()
    run.facts.calls.append(Call("start", "acme", "line-0", "ok", via="publish", workflow="unheard-of"))
    assert run.broken() == {"I1"}
    letter = Message("workflow.dlq.acme", 1, 1, {"execution_id": "line-0"}, {"Wpa-Code": "unknown_workflow"})
    run.facts.letters.append(letter)
    assert run.broken() == set()


def test_a_timer_may_be_late_while_a_fault_lasts_and_for_a_while_after_it() -> None:
    run = Run()
    event = run.event("sleeper-6", "step_completed", slot="nap")
    run.facts.faults.append(Fault("away", event.stored_ms - 100, event.stored_ms + 8_000))
    for later in run.journal("sleeper-6")[event.seq - 1 :]:
        run.stored(later, 12_000)
    assert "I7" not in run.broken()


def test_what_happened_just_before_the_dump_is_not_judged_as_stuck() -> None:
    run = Run()
    run.cut(run.event("line-0", "step_completed", 1))
    run.facts.taken_ms = run.journal("line-0")[-1].stored_ms - 1
    assert "I2" not in {one for one in broken(run.facts) if one == "I2"}


def test_an_effect_may_happen_twice_where_at_most_once_is_not_asked_for() -> None:
    run = Run()
    run.facts.effects.append(replace(run.effect("line-0:a:1"), attempt=2))
    assert run.broken() == set()


def test_whoever_resumes_may_give_a_reason_of_the_engines_own() -> None:
    run = Run()
    done = run.event("line-0", "step_completed")
    at = run.facts.events.index(done) + 1
    for name in ("resumed", "paused"):
        data = {"by": {"user_id": "ana"}, "reason": "go on"}
        told = {"id": f"{name}-by-ana", "event": f"workflow_{name}", "worker": "another", "data": data}
        run.facts.events.insert(at, replace(done, body={**done.body, **told}))
    run.renumber("line-0")
    assert "I3" not in run.broken()
    # The engine itself says no more than this, and is the driver.
    run.envelope(run.event("line-0", "resumed"), data={"reason": "go on"})
    assert "I3" in run.broken()


def test_evidence_names_the_events() -> None:
    run = Run()
    run.twice(run.event("line-0", "step_completed", 0))
    found = [str(one) for one in judge(run.facts, BOUNDS) if one.promise == "I4"]
    assert "I4 acme.line-0: attempt 1 at a has two results" in found[0]
    assert "#2 at" in found[0]
    assert "#3 at" in found[0]
