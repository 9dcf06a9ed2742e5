"""Falsified in any of these ways, a recorded run breaks one of the promises about journals: I1 to I5."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.checker.facts import Call, Effect, Message
from tests.unit.checker.tampering import Falsify, Run, moved, names

# -- I1 --------------------------------------------------------------------------------------


def a_second_start(run: Run) -> None:
    first = run.event("line-0", "started")
    run.twice(first, start_hash="another")


def an_acknowledged_start_without_an_execution(run: Run) -> None:
    for event in run.journal("line-0"):
        run.drop(event)
    run.forget("line-0")


def a_start_of_something_else(run: Run) -> None:
    run.data(run.event("stubborn-2", "started"), input={"word": "other"})


def a_version_that_nobody_was_told(run: Run) -> None:
    (plan,) = (one for one in run.facts.definitions if (one.tenant, one.workflow) == ("acme", "line"))
    run.facts.definitions.append(replace(plan, version="9"))
    run.facts.calls = [
        replace(call, version="9") if (call.kind, call.execution) == ("start", "line-0") else call
        for call in run.facts.calls
    ]


def an_execution_that_nobody_asked_for(run: Run) -> None:
    run.facts.calls = [call for call in run.facts.calls if call.execution != "once-10"]


def a_child_that_its_parent_never_opened(run: Run) -> None:
    parent = {"execution_id": "parent-8", "slot": "other"}
    run.data(run.event("parent-8-sub", "started"), parent=parent)


def a_refused_start_that_runs_all_the_same(run: Run) -> None:
    calls = run.facts.calls
    for index, call in enumerate(calls):
        if call.kind == "start" and call.execution == "once-10":
            calls[index] = replace(call, outcome="failed", code="invalid_input")


# -- I2 --------------------------------------------------------------------------------------


def an_execution_that_nobody_drives_on(run: Run) -> None:
    run.cut(run.event("line-0", "step_completed", 1))


def a_wait_without_an_alarm(run: Run) -> None:
    run.facts.timers.clear()


def a_task_that_is_left(run: Run) -> None:
    body = {"type": "workflow_signal", "execution_id": "line-0"}
    run.facts.tasks.append(Message("workflow.tasks.acme", 9, 1, body))


def an_alarm_that_rang_unheard(run: Run) -> None:
    body = {"type": "timer_due", "execution_id": "line-0"}
    run.facts.timers.append(Message("workflow.due.acme", 9, 1, body))


def a_remote_step_that_is_sent_for_nobody(run: Run) -> None:
    body = {"execution_id": "remote-13", "slot": "r"}
    run.facts.tasks.append(Message("workflow.steps.acme.gpu", 9, 1, body))


def a_signal_that_is_lost(run: Run) -> None:
    told = {"signal": "go", "id": "lost"}
    run.facts.calls.append(Call("signal", "acme", "waiter-19", "ok", body=told))


def a_signal_that_no_wait_takes(run: Run) -> None:
    event = run.event("waiter-19", "waiting")
    signal = {"id": "s", "name": "go", "payload": None}
    told = {"signal": signal}
    run.put(event, replace(event, body={**event.body, "event": "workflow_signalled", "data": told}))
    run.twice(run.journal("waiter-19")[-1])
    last = run.journal("waiter-19")[-1]
    run.put(last, replace(event, sequence=last.sequence, body={**event.body, "seq": last.seq}))
    run.forget("waiter-19")


def a_parent_that_never_hears_of_its_child(run: Run) -> None:
    run.cut(run.event("parent-8", "signalled"))


def an_execution_that_is_blocked(run: Run) -> None:
    error = {"type": "Diverged", "message": "other code"}
    run.data(run.event("waiter-19", "waiting"), blocked=error)


def a_child_that_was_never_started(run: Run) -> None:
    run.cut(run.event("parent-8", "signalled"))
    for event in run.journal("parent-8-sub"):
        run.drop(event)


def a_remote_step_that_is_in_no_queue(run: Run) -> None:
    run.cut(run.event("remote-13", "signalled"))


def a_step_at_rest_that_nobody_runs(run: Run) -> None:
    """The pause in which it came to rest is forgotten."""
    run.cut(run.event("paused-9", "resumed"))
    run.drop(run.event("paused-9", "paused"))
    run.renumber("paused-9")


# -- I3 --------------------------------------------------------------------------------------


def two_events_in_the_other_order(run: Run) -> None:
    first, second = run.event("line-0", "step_completed", 0), run.event("line-0", "step_completed", 1)
    events = run.facts.events
    at, after = events.index(first), events.index(second)
    events[at], events[after] = second, first


def two_events_in_the_other_order_renumbered(run: Run) -> None:
    run.swap(run.event("line-0", "step_completed", 0), run.event("line-0", "step_completed", 1))


def an_event_that_is_missing(run: Run) -> None:
    run.drop(run.event("line-0", "step_completed", 1))


def an_event_that_is_missing_renumbered(run: Run) -> None:
    run.drop(run.event("line-0", "step_completed", 1))
    run.renumber("line-0")


def an_event_of_another_tenant(run: Run) -> None:
    run.envelope(run.event("line-0", "step_completed"), tenant_id="zeta")


def an_event_after_the_end(run: Run) -> None:
    end = run.event("line-0", "completed")
    run.twice(end)


def a_zombie_that_writes(run: Run) -> None:
    recovered = run.event("saga-15", "recovered")
    after = run.journal("saga-15")[recovered.seq]
    run.envelope(after, epoch=1)


def a_second_driver(run: Run) -> None:
    run.envelope(run.event("line-0", "step_completed", 1), worker="somebody-else")


def a_takeover_in_the_same_epoch(run: Run) -> None:
    run.envelope(run.event("saga-15", "recovered"), epoch=1)


def a_slot_that_is_forgotten(run: Run) -> None:
    run.data(run.event("waiter-7", "step_completed", 0), next=[])


def a_trace_that_changes(run: Run) -> None:
    run.envelope(run.event("line-0", "completed"), traceparent="00-0-0-01")


def a_message_that_counts_twice(run: Run) -> None:
    first = run.event("line-0", "started")
    run.data(run.event("line-0", "step_completed"), lease=first.data["lease"])


def a_beginning_that_is_missing(run: Run) -> None:
    run.drop(run.event("once-10", "started"))


def a_lost_step_that_is_not_counted(run: Run) -> None:
    run.data(run.event("paused-9", "recovered"), lost=[])


def a_signal_that_was_never_there(run: Run) -> None:
    event = run.event("remote-13", "step_completed", slot="r")
    run.data(event, signals=["another"])


def a_signal_that_is_recorded_twice(run: Run) -> None:
    event = run.event("flow-hello", "signalled")
    run.twice(event)


# -- I4 --------------------------------------------------------------------------------------


def a_result_that_is_recorded_twice(run: Run) -> None:
    run.twice(run.event("line-0", "step_completed", 0))


def a_result_of_another_attempt(run: Run) -> None:
    run.data(run.event("line-0", "step_completed", 0), attempt=2)


def a_successor_before_its_result(run: Run) -> None:
    run.data(run.event("line-0", "started"), next=["a", "b"])


def a_successor_that_is_opened_with_what_it_needs(run: Run) -> None:
    run.data(run.event("line-0", "step_completed", 0), next=["b", "c"])


def an_effect_before_the_opening(run: Run) -> None:
    opened = run.event("line-0", "step_completed", 0)
    run.change_effect(run.effect("line-0:b:1"), at_ms=opened.stored_ms - 20)


def a_step_that_began_before_it_was_opened(run: Run) -> None:
    event = run.event("line-0", "step_completed", 1)
    run.data(event, started_at=moved(event.data["started_at"], -1000))


# -- I5 --------------------------------------------------------------------------------------


def an_undo_in_the_order_of_the_steps(run: Run) -> None:
    run.swap(run.event("saga-4", "step_compensated", 0), run.event("saga-4", "step_compensated", 1))


def an_undo_that_is_left_out(run: Run) -> None:
    event = run.event("saga-4", "compensating")
    run.data(event, undo=event.data["undo"][:-1])


def an_undo_of_what_was_not_done(run: Run) -> None:
    event = run.event("saga-4", "compensating")
    run.data(event, undo=[*event.data["undo"], "d:undo"])


def an_undo_that_is_recorded_twice(run: Run) -> None:
    run.twice(run.event("saga-4", "step_compensated", 0))


def rolled_back_too_early(run: Run) -> None:
    run.drop(run.event("saga-4", "step_compensated", -1))
    run.renumber("saga-4")


def an_end_without_compensation(run: Run) -> None:
    event = run.event("saga-4", "compensating")
    failed = {**event.data, "undone": [], "not_undone": ["c", "b", "b", "b", "a"], "duration_ms": 1}
    run.put(event, replace(event, body={**event.body, "event": "workflow_failed", "data": failed}))
    for later in run.journal("saga-4")[event.seq :]:
        run.drop(later)


def undone_in_the_world_in_the_wrong_order(run: Run) -> None:
    first, last = run.effect("saga-4:c:1:undo"), run.effect("saga-4:a:1:undo")
    run.change_effect(first, key=last.key, step=last.step)
    run.change_effect(last, key=first.key, step=first.step)


def undone_though_all_went_well(run: Run) -> None:
    run.facts.effects.append(Effect("line-0", "a", "line-0:a:1:undo", 1, "undo", 1, "acme"))


def an_undo_that_gave_up_and_is_not_told(run: Run) -> None:
    """The last undo is not recorded, and the end says that it failed, and nothing of what is left."""
    run.drop(run.event("saga-4", "step_compensated", -1))
    end = run.event("saga-4", "rolled_back")
    data = {**end.data, "undone": end.data["undone"][:-1]}
    run.put(end, replace(end, body={**end.body, "event": "workflow_failed", "data": data}))
    run.renumber("saga-4")


def a_cancel_that_undoes_nothing_and_does_not_say_so(run: Run) -> None:
    event = run.event("saga-4", "compensating")
    done = {"by": {}, "reason": "", "undone": [], "terminated": False}
    run.put(event, replace(event, body={**event.body, "event": "workflow_cancelled", "data": done}))
    for later in run.journal("saga-4")[event.seq :]:
        run.drop(later)


def a_flow_that_undoes_in_the_order_of_the_steps(run: Run) -> None:
    event = run.event("flow-hello", "step_completed", 1)
    undo = {"undo": ["core_log:undo", "sleep:undo"], "error": {"type": "X"}, "next": ["core_log:undo"]}
    done = run.event("flow-hello", "completed")
    run.put(done, replace(done, body={**event.body, "event": "workflow_compensating", "data": undo}))


FALSIFIED: list[tuple[str, Falsify]] = [
    ("I1", a_second_start),
    ("I1", an_acknowledged_start_without_an_execution),
    ("I1", a_start_of_something_else),
    ("I1", a_version_that_nobody_was_told),
    ("I1", an_execution_that_nobody_asked_for),
    ("I1", a_child_that_its_parent_never_opened),
    ("I1", a_refused_start_that_runs_all_the_same),
    ("I2", an_execution_that_nobody_drives_on),
    ("I2", a_wait_without_an_alarm),
    ("I2", a_task_that_is_left),
    ("I2", an_alarm_that_rang_unheard),
    ("I2", a_remote_step_that_is_sent_for_nobody),
    ("I2", a_signal_that_is_lost),
    ("I2", a_signal_that_no_wait_takes),
    ("I2", a_parent_that_never_hears_of_its_child),
    ("I2", an_execution_that_is_blocked),
    ("I2", a_child_that_was_never_started),
    ("I2", a_remote_step_that_is_in_no_queue),
    ("I2", a_step_at_rest_that_nobody_runs),
    ("I3", a_lost_step_that_is_not_counted),
    ("I3", a_signal_that_was_never_there),
    ("I3", a_signal_that_is_recorded_twice),
    ("I3", two_events_in_the_other_order),
    ("I3", two_events_in_the_other_order_renumbered),
    ("I3", an_event_that_is_missing),
    ("I3", an_event_that_is_missing_renumbered),
    ("I3", an_event_of_another_tenant),
    ("I3", an_event_after_the_end),
    ("I3", a_zombie_that_writes),
    ("I3", a_second_driver),
    ("I3", a_takeover_in_the_same_epoch),
    ("I3", a_slot_that_is_forgotten),
    ("I3", a_trace_that_changes),
    ("I3", a_message_that_counts_twice),
    ("I3", a_beginning_that_is_missing),
    ("I4", a_result_that_is_recorded_twice),
    ("I4", a_result_of_another_attempt),
    ("I4", a_successor_before_its_result),
    ("I4", a_successor_that_is_opened_with_what_it_needs),
    ("I4", an_effect_before_the_opening),
    ("I4", a_step_that_began_before_it_was_opened),
    ("I5", an_undo_in_the_order_of_the_steps),
    ("I5", an_undo_that_is_left_out),
    ("I5", an_undo_of_what_was_not_done),
    ("I5", an_undo_that_is_recorded_twice),
    ("I5", rolled_back_too_early),
    ("I5", an_end_without_compensation),
    ("I5", undone_in_the_world_in_the_wrong_order),
    ("I5", undone_though_all_went_well),
    ("I5", an_undo_that_gave_up_and_is_not_told),
    ("I5", a_cancel_that_undoes_nothing_and_does_not_say_so),
    ("I5", a_flow_that_undoes_in_the_order_of_the_steps),
]


@pytest.mark.parametrize(("promise", "falsify"), FALSIFIED, ids=names(FALSIFIED))
def test_what_is_falsified_is_found(promise: str, falsify: Falsify) -> None:
    run = Run()
    falsify(run)
    assert promise in run.broken()
