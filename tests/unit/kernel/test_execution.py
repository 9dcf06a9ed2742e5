from __future__ import annotations

import msgspec
import pytest

from tests.unit.kernel.programs import Node, Toy
from tests.unit.kernel.table import Table
from wpa.kernel import requests
from wpa.kernel.execution import Diverged, Execution
from wpa.kernel.program import Retry, StepPolicy
from wpa.model.events import Failure
from wpa.model.limits import Limits
from wpa.model.state import encode_state

ONCE = Retry(max_attempts=1)
SAGA = StepPolicy(on_error="compensate", retry=ONCE)


def sequence(**policies: StepPolicy) -> Toy:
    return Toy(
        Node("a", policy=policies.get("a"), undo=True),
        Node("b", "a", policy=policies.get("b"), undo=True),
        Node("c", "b", policy=policies.get("c"), undo=True),
    )


def test_a_sequence_appends_one_event_a_step_and_one_at_each_end() -> None:
    table = Table(sequence())
    table.ok("a", "b", "c")
    assert table.events == ["started", "step_completed", "step_completed", "step_completed", "completed"]
    assert table.state.status == "COMPLETED"
    assert table.state.output == {"a": {"did": "a"}, "b": {"did": "b"}, "c": {"did": "c"}}


def test_next_names_the_steps_that_run_after_each_event() -> None:
    table = Table(Toy(Node("a"), Node("b", "a"), Node("c", "a"), Node("d", "b", "c")))
    table.ok("a", "c", "b", "d")
    nexts = [event.data.get("next") for event in table.journal]
    assert nexts == [["a"], ["b", "c"], ["b"], ["d"], [], None]


def test_slots_are_run_only_after_the_event_that_opened_them_is_recorded() -> None:
    table = Table(sequence())
    assert table.to_run == ["a"]
    draft_opens = table.execution.wants.keys()
    assert draft_opens == {"a"}
    table.ok("a")
    assert table.to_run == ["a", "b"]


def test_max_parallel_is_kept_and_the_urgent_go_first() -> None:
    urgent = StepPolicy(priority=9)
    toy = Toy(Node("a"), Node("b"), Node("c", policy=urgent), Node("d"), max_parallel=2)
    table = Table(toy)
    assert table.journal[0].data["next"] == ["c", "a"]
    table.ok("c")
    assert table.last.data["next"] == ["a", "b"]
    table.ok("a", "b", "d")
    assert table.state.status == "COMPLETED"


def test_a_failed_attempt_is_retried_with_exponential_backoff() -> None:
    policy = StepPolicy(retry=Retry(max_attempts=3, initial_ms=1000, factor=2, jitter=0.0))
    table = Table(Toy(Node("a", policy=policy)))
    table.fail("a")
    first = table.last.data
    assert (first["final"], first["attempt"], first["next"]) == (False, 1, ["a"])
    table.fail("a")
    second = table.last.data
    assert second["attempt"] == 2
    assert second["retry_at"] > first["retry_at"]
    table.ok("a")
    assert table.state.status == "COMPLETED"
    assert table.state.slots["a"].attempt == 3


def test_the_last_allowed_attempt_gives_up() -> None:
    table = Table(Toy(Node("a", policy=StepPolicy(retry=Retry(max_attempts=2)))))
    table.fail("a")
    table.fail("a")
    assert table.events == ["started", "step_failed", "step_failed", "failed"]
    assert table.state.error is not None
    assert table.state.error.message == "a failed"
    assert table.state.failed_step == "a"


def test_an_error_that_is_not_retryable_gives_up_at_once() -> None:
    table = Table(Toy(Node("a")))
    table.fail("a", retryable=False)
    assert table.events == ["started", "step_failed", "failed"]


def test_retry_on_and_give_up_on_pick_error_types() -> None:
    policy = StepPolicy(retry=Retry(retry_on=("Busy",), give_up_on=("Fatal",)))
    for kind, events in (("Busy", 2), ("Fatal", 3), ("Other", 3)):
        table = Table(Toy(Node("a", policy=policy)))
        table.fail("a", kind)
        assert len(table.journal) == events, kind


def test_a_retry_past_the_deadline_is_not_waited_for() -> None:
    policy = StepPolicy(deadline_ms=1_500, retry=Retry(max_attempts=9, initial_ms=1_000, jitter=0.0))
    table = Table(Toy(Node("a", policy=policy)))
    table.fail("a")
    assert table.last.data["final"] is False
    table.now_ms += 1_000
    table.fail("a")
    assert table.state.status == "FAILED"
    assert table.state.error is not None
    assert table.state.error.type == "DeadlineExceeded"
    assert "a failed" in table.state.error.message


def test_timeout_is_what_timeout_and_deadline_leave() -> None:
    policy = StepPolicy(timeout_ms=400, deadline_ms=1_000)
    table = Table(Toy(Node("a", policy=policy), Node("b")))
    assert table.execution.timeout_ms("a", table.now_ms) == 400
    assert table.execution.timeout_ms("a", table.now_ms + 900) == 100
    assert table.execution.timeout_ms("a", table.now_ms + 5_000) == 1
    assert table.execution.timeout_ms("b", table.now_ms) is None


def test_on_error_continue_settles_the_step_as_failed_and_goes_on() -> None:
    policy = StepPolicy(on_error="continue", retry=ONCE)
    table = Table(Toy(Node("a", policy=policy), Node("b", "a")))
    table.fail("a")
    assert table.last.data["next"] == ["b"]
    table.ok("b")
    assert table.state.status == "COMPLETED"


def test_on_error_fail_ends_at_once_and_names_what_is_not_undone() -> None:
    table = Table(sequence(b=StepPolicy(on_error="fail", retry=ONCE)))
    table.ok("a")
    table.fail("b")
    assert table.state.status == "FAILED"
    assert table.last.data["not_undone"] == ["a"]


def test_compensation_undoes_completed_steps_in_reverse_order_of_completion() -> None:
    toy = Toy(
        Node("a", undo=True),
        Node("b", undo=True),
        Node("c", undo=True),
        Node("d", "a", "b", "c", policy=SAGA),
    )
    table = Table(toy)
    table.ok("b", "c", "a")
    table.fail("d")
    assert table.state.status == "COMPENSATING"
    assert table.last.data["undo"] == ["a:undo", "c:undo", "b:undo"]
    assert table.state.open == ["a:undo"]
    table.ok("a:undo", "c:undo", "b:undo")
    assert table.state.status == "ROLLED_BACK"
    assert table.state.undone == ["a", "c", "b"]


def test_a_journal_grows_with_what_is_undone_and_not_with_its_square() -> None:
    sizes = {}
    for steps in (200, 2_000):
        table = Table(Toy(*(Node(f"s{n}", undo=True) for n in range(steps)), Node("last", policy=SAGA)))
        table.ok(*(f"s{n}" for n in range(steps)))
        table.fail("last")
        table.ok(*table.state.undo)
        assert table.state.status == "ROLLED_BACK"
        assert table.last.data["undone"] == table.state.undone
        told = [event.data for event in table.journal if event.event == "workflow_step_compensated"]
        assert [data["undone"][-1] for data in told] == table.state.undone
        assert told[99]["undone"] == table.state.undone[:100]
        assert told[150]["undone"] == table.state.undone[51:151]
        sizes[steps] = len(msgspec.json.encode(told)) / steps
    assert sizes[2_000] < 1.5 * sizes[200]


def test_compensation_waits_for_what_still_runs() -> None:
    toy = Toy(Node("a", undo=True), Node("b", policy=SAGA))
    table = Table(toy)
    table.fail("b")
    assert table.state.status == "RUNNING"
    assert table.state.failing == "b"
    table.ok("a")
    assert table.state.status == "COMPENSATING"
    assert table.state.undo == ["a:undo"]


def test_while_a_failed_execution_winds_down_nothing_new_is_started_and_nothing_retried() -> None:
    toy = Toy(Node("a", undo=True), Node("b", policy=SAGA), Node("c", "a"), Node("d"))
    table = Table(toy)
    table.fail("b")
    table.ok("a")
    assert "c" not in table.state.slots
    table.fail("d")
    assert table.last.event == "workflow_compensating"


def test_with_nothing_to_undo_a_saga_still_ends_rolled_back() -> None:
    table = Table(sequence(a=SAGA))
    table.fail("a")
    assert table.events == ["started", "step_failed", "compensating", "rolled_back"]


def test_compensations_are_retried_and_one_that_gives_up_leaves_failed_with_what_is_undone() -> None:
    patient = StepPolicy(retry=Retry(max_attempts=2))
    toy = Toy(
        Node("a", undo=True, undo_policy=patient),
        Node("b", "a", undo=True, undo_policy=patient),
        Node("c", "b", undo=True, undo_policy=patient),
        Node("d", "c", policy=SAGA),
    )
    table = Table(toy)
    table.ok("a", "b", "c")
    table.fail("d")
    table.fail("c:undo")
    assert table.state.status == "COMPENSATING"
    table.ok("c:undo")
    table.fail("b:undo")
    table.fail("b:undo")
    assert table.state.status == "FAILED"
    assert table.last.data["undone"] == ["c"]
    assert table.last.data["not_undone"] == ["b", "a"]
    assert table.state.error is not None
    assert table.state.error.type == "CompensationFailed"


def test_a_decision_is_recorded_and_settled_with_its_record() -> None:
    toy = Toy(Node("a", decision={"kind": "switch", "taken": ["b"]}), Node("b", "a"))
    table = Table(toy)
    assert table.events == ["started", "decision_point"]
    assert table.last.data["decision"] == {"kind": "switch", "taken": ["b"]}
    assert table.last.data["next"] == ["b"]
    table.ok("b")
    assert table.state.output["a"] == {"kind": "switch", "taken": ["b"]}


def test_a_step_whose_inputs_cannot_be_computed_fails_without_an_attempt() -> None:
    fault = Failure(type="ExpressionError", message="no such key", retryable=False)
    table = Table(Toy(Node("a"), Node("b", "a", fault=fault)))
    table.ok("a")
    assert table.events == ["started", "step_completed", "step_failed", "failed"]
    assert table.state.failed_step == "b"


@pytest.mark.parametrize("crash_at", range(5))
def test_a_crash_after_any_event_changes_nothing_but_the_epoch(crash_at: int) -> None:
    table = Table(sequence())
    steps = ["a", "b", "c"]
    for number in range(4):
        if number == crash_at:
            table.crash()
        if number < 3:
            table.ok(steps[number])
    if crash_at == 4:
        table.crash()
    assert table.state.status == "COMPLETED"
    assert table.state.output == {"a": {"did": "a"}, "b": {"did": "b"}, "c": {"did": "c"}}
    assert table.events.count("step_completed") == 3
    assert table.events.count("recovered") == (1 if crash_at < 3 else 0)


def test_a_crash_between_two_appends_heals_at_the_next_load() -> None:
    table = Table(sequence())
    table.ok("a", "b", "c")
    table.journal.pop()  # the end was decided, and never stored
    table.crash()
    assert table.events[-2:] == ["recovered", "completed"]


def test_a_crash_during_compensation_goes_on_where_it_was() -> None:
    table = Table(sequence(c=SAGA))
    table.ok("a", "b")
    table.fail("c")
    table.ok("b:undo")
    table.crash()
    assert table.state.open == ["a:undo"]
    table.ok("a:undo")
    assert table.state.status == "ROLLED_BACK"
    assert table.state.undone == ["b", "a"]


def test_takeover_raises_the_epoch_and_counts_the_lost_attempt() -> None:
    table = Table(sequence())
    table.ok("a")
    table.crash()
    assert table.last.data["lost"] == ["b"]
    assert (table.state.epoch, table.state.slots["b"].attempt, table.state.slots["b"].lost) == (2, 2, 1)


def test_a_step_that_waits_for_its_retry_is_not_lost_with_its_worker() -> None:
    policy = StepPolicy(retry=Retry(initial_ms=60_000, max_ms=60_000, jitter=0.0))
    table = Table(Toy(Node("a", policy=policy)))
    table.fail("a")
    table.crash()
    slot = table.state.slots["a"]
    assert (slot.attempt, slot.lost, bool(slot.retry_at)) == (2, 0, True)


def test_at_most_once_is_never_run_again_after_a_crash() -> None:
    policy = StepPolicy(at_most_once=True)
    table = Table(Toy(Node("a", policy=policy)))
    table.crash()
    assert table.state.status == "FAILED"
    assert table.state.error is not None
    assert table.state.error.type == "OutcomeUnknown"


def test_at_most_once_is_not_retried_after_a_failure() -> None:
    table = Table(Toy(Node("a", policy=StepPolicy(at_most_once=True))))
    table.fail("a")
    assert table.state.status == "FAILED"


def test_a_step_that_keeps_ending_its_workers_is_given_up() -> None:
    table = Table(Toy(Node("a")), limits=Limits(lost_attempts_max=3))
    for _ in range(3):
        table.crash()
        assert table.state.status == "RUNNING"
    table.crash()
    assert table.state.status == "FAILED"
    assert table.state.error is not None
    assert table.state.error.type == "WorkerLost"


def test_an_execution_over_the_events_limit_fails_with_a_clear_error() -> None:
    table = Table(sequence(), limits=Limits(events_max=2))
    table.ok("a")
    assert table.state.status == "FAILED"
    assert table.state.error is not None
    assert table.state.error.type == "OverLimit"


def test_one_that_comes_over_the_events_limit_in_a_pause_fails_at_the_resume() -> None:
    table = Table(sequence(), limits=Limits(events_max=4))
    assert table.ask(requests.paused(table.state, {}, "", table.now_ms))
    for _ in range(4):
        assert table.signal("go")
    table.ok("a")
    table.crash()
    assert table.state.status == "PAUSED"
    table.rest()
    assert table.ask(requests.resumed(table.state, {}, "", table.now_ms, "task-9"))
    assert (table.state.status, table.last.data["not_undone"]) == ("FAILED", ["a"])
    assert encode_state(table.folded()) == encode_state(table.state)


def test_folding_the_journal_gives_the_state_that_was_driven() -> None:
    table = Table(sequence(c=SAGA))
    table.ok("a", "b")
    table.fail("c")
    table.ok("b:undo", "a:undo")
    assert encode_state(table.folded()) == encode_state(table.state)


def test_a_changed_definition_is_noticed() -> None:
    table = Table(sequence())
    state = table.folded()
    other = sequence()
    other.hash = "other"
    with pytest.raises(Diverged, match="changed in place"):
        Execution.rebuild(other, state, Limits())


def test_a_program_that_never_asks_for_a_settled_slot_is_noticed() -> None:
    table = Table(sequence())
    table.ok("a")
    with pytest.raises(Diverged, match="does not ask"):
        Execution.rebuild(Toy(Node("z")), table.folded(), Limits())
