from __future__ import annotations

import contextlib
import re
from collections.abc import Callable
from itertools import product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.kernel.programs import Node, Toy
from tests.unit.kernel.table import Table
from wpa import call, flow, plan, saga, signal
from wpa.errors import TaskRejected
from wpa.flows import flow_of
from wpa.kernel import requests, waits
from wpa.kernel.execution import Attempt, Execution
from wpa.kernel.program import Approval, Child, Escalation, Retry, StepPolicy, Wait
from wpa.kernel.rebase import rebase
from wpa.model import events as ev
from wpa.model.limits import Limits
from wpa.model.state import decode_state, encode_state, is_terminal

HOUR = 3_600_000
UNDOES = StepPolicy(on_error="compensate", retry=Retry(max_attempts=1))
CONTINUE = StepPolicy(on_error="continue", retry=Retry(max_attempts=1))


def sleeping(ms: int = HOUR) -> Toy:
    return Toy(Node("nap", kind="timer", wait=Wait(delay_ms=ms)), Node("after", "nap"))


def waiting(policy: StepPolicy | None = None, **wait: Any) -> Toy:
    return Toy(Node("w", kind="signal", wait=Wait(signal="go", **wait), policy=policy))


def approving(approval: Approval, **wait: Any) -> Toy:
    return Toy(Node("ok", kind="approval", wait=Wait(approval=approval, **wait)))


def answer(table: Table, user: str, approved: bool = True, roles: tuple[str, ...] = ()) -> bool:
    by = {"user_id": user, "roles": list(roles)}
    return table.tell("ok", {"approved": approved}, by, id=f"answer:ok:{user}")


# -- timers ----------------------------------------------------------------------------------


def test_a_timer_is_recorded_with_its_moment_and_settled_no_sooner() -> None:
    table = Table(sleeping())
    opened = table.now_ms
    assert table.execution.wake_ms() == opened + HOUR
    assert table.state.slots["nap"].kind == "timer"
    table.now_ms += HOUR - 1
    table.follow()
    assert table.events == ["started"]
    table.now_ms += 1
    table.follow()
    assert table.events == ["started", "step_completed"]
    assert table.to_run == ["nap", "after"]


def test_at_rest_there_is_no_lease_and_the_alarm_is_in_the_state() -> None:
    table = Table(sleeping())
    table.rest()
    assert (table.state.status, table.state.at_rest) == ("WAITING", True)
    assert table.last.data["waiting_for"] == [
        {"slot": "nap", "step": "nap", "kind": "timer", "until": table.state.wake_at}
    ]
    table.wake()
    assert (table.state.status, table.state.epoch) == ("RUNNING", 2)
    table.ok("after")
    assert table.state.status == "COMPLETED"
    assert table.state.at_rest


def nap(name: str, ms: int) -> Node:
    return Node(name, kind="timer", wait=Wait(delay_ms=ms))


def test_what_became_due_together_is_over_in_the_order_of_its_moments() -> None:
    late = Node("late", kind="signal", wait=Wait(signal="go", delay_ms=3 * HOUR, has_default=True))
    table = Table(Toy(late, nap("second", 2 * HOUR), nap("first", HOUR), nap("tie", 2 * HOUR)))
    table.rest()
    table.now_ms += 5 * HOUR  # a pause, or nobody there to answer the alarm
    table.wake()
    assert table.state.order == ["first", "second", "tie", "late"]


def test_what_was_recorded_in_another_order_is_told_in_that_order() -> None:
    steps: list[dict[str, Any]] = [
        {"id": "second", "uses": "core.sleep", "with": {"for": "2h"}},
        {"id": "first", "uses": "core.sleep", "with": {"for": "1h"}},
        {"id": "after", "uses": "toy.step", "needs": ["second", "first"], "join": "race"},
    ]
    table = Table(plan.load({"id": "toy", "version": "1", "steps": steps}))
    table.now_ms += 5 * HOUR
    table.attempt("second")  # as an older worker took it
    assert (table.last.data["dropped"], table.state.open) == (["first"], ["after"])
    table.crash()
    assert (table.state.order, table.state.open) == (["second"], ["after"])
    table.ok("after")
    assert table.state.status == "COMPLETED"


def test_waits_need_no_room() -> None:
    naps = [Node(f"n{number}", kind="timer", wait=Wait(delay_ms=HOUR)) for number in range(5)]
    table = Table(Toy(*naps, Node("a"), Node("b"), max_parallel=1))
    assert table.state.open == ["n0", "n1", "n2", "n3", "n4", "a"]
    table.ok("a")
    assert table.state.open == ["n0", "n1", "n2", "n3", "n4", "b"]


def test_a_retry_that_is_far_away_is_waited_for_at_rest() -> None:
    slow = StepPolicy(retry=Retry(max_attempts=2, initial_ms=HOUR, max_ms=HOUR, jitter=0))
    table = Table(Toy(Node("a", policy=slow)))
    table.fail("a")
    table.rest()
    assert table.last.data["waiting_for"][0]["kind"] == "retry"
    table.wake()
    assert table.state.slots["a"].attempt == 2
    table.ok("a")
    assert table.state.status == "COMPLETED"


# -- signals ---------------------------------------------------------------------------------


def test_a_signal_that_comes_before_the_wait_is_kept() -> None:
    toy = Toy(Node("a"), Node("w", "a", kind="signal", wait=Wait(signal="go")))
    table = Table(toy)
    table.signal("go", {"n": 1})
    assert [signal.name for signal in table.state.signals] == ["go"]
    table.ok("a")
    assert table.state.status == "COMPLETED"
    assert table.state.slots["w"].output == {"n": 1}
    assert not table.state.signals


def test_a_signal_that_comes_twice_counts_once() -> None:
    table = Table(waiting())
    table.rest()
    assert table.signal("other", id="x")
    assert not table.signal("other", id="x")
    assert len(table.state.signals) == 1


def test_signals_are_taken_in_the_order_in_which_they_came() -> None:
    toy = Toy(
        Node("a", kind="signal", wait=Wait(signal="go")),
        Node("b", "a", kind="signal", wait=Wait(signal="go")),
    )
    table = Table(toy)
    table.signal("go", 1)
    table.signal("go", 2)
    assert table.state.output == {"a": 1, "b": 2}


def test_a_time_out_fails_or_gives_the_default() -> None:
    table = Table(waiting(delay_ms=HOUR))
    table.rest()
    table.wake()
    assert (table.state.status, table.state.error and table.state.error.type) == ("FAILED", "Timeout")
    table = Table(waiting(delay_ms=HOUR, has_default=True, default="none came"))
    table.rest()
    table.wake()
    assert table.state.output == {"w": "none came"}
    table = Table(waiting(policy=CONTINUE, delay_ms=HOUR))
    table.rest()
    table.wake()
    assert table.state.status == "COMPLETED"


def test_a_signal_to_one_that_has_ended_is_refused() -> None:
    table = Table(Toy(Node("a")))
    table.ok("a")
    with pytest.raises(TaskRejected, match="has ended, COMPLETED"):
        table.signal("go")


# -- approvals -------------------------------------------------------------------------------


def test_an_approval_takes_as_many_different_people_as_it_asks_for() -> None:
    table = Table(approving(Approval(roles=("boss",), count=2)))
    answer(table, "ana", roles=("boss",))
    assert table.state.status == "RUNNING"
    assert not answer(table, "ana", roles=("boss",))
    answer(table, "eve", roles=("guest",))
    assert table.state.status == "RUNNING"
    answer(table, "bob", roles=("boss",))
    verdict = table.state.output["ok"]
    assert verdict["approved"] is True
    assert [told["by"]["user_id"] for told in verdict["answers"]] == ["ana", "bob"]


def test_one_rejection_ends_an_approval() -> None:
    table = Table(approving(Approval(count=3)))
    answer(table, "ana")
    answer(table, "bob", approved=False)
    assert table.state.output["ok"]["approved"] is False


def test_those_who_say_no_name_are_not_several_people() -> None:
    table = Table(approving(Approval(count=2)))
    table.tell("ok", {"approved": True}, id="answer:ok:1")
    table.tell("ok", {"approved": True}, id="answer:ok:2")
    assert table.state.status == "RUNNING"
    answer(table, "ana")
    assert table.state.output["ok"]["approved"] is True


def test_what_was_approved_in_a_pause_is_not_rejected_afterwards() -> None:
    table = Table(approving(Approval(count=2)))
    table.ask(requests.paused(table.state, {}, "", table.now_ms))
    answer(table, "ana")
    answer(table, "bob")
    answer(table, "eve", approved=False)
    table.ask(requests.resumed(table.state, {}, "", table.now_ms, "t"))
    verdict = table.state.output["ok"]
    assert verdict["approved"] is True
    assert [told["by"]["user_id"] for told in verdict["answers"]] == ["ana", "bob"]
    assert not table.state.signals


@pytest.mark.parametrize(("after_ms", "counts"), [(0, True), (HOUR, True), (HOUR + 1, False)])
def test_an_answer_in_a_pause_counts_if_the_time_was_not_over(after_ms: int, counts: bool) -> None:
    table = Table(approving(Approval(), delay_ms=HOUR, has_default=True, default={"approved": False}))
    table.ask(requests.paused(table.state, {}, "", table.now_ms))
    table.now_ms += after_ms
    answer(table, "ana")
    table.now_ms += 2 * HOUR
    table.crash()
    table.ask(requests.resumed(table.state, {}, "", table.now_ms, "t"))
    assert table.state.output["ok"]["approved"] is counts


@pytest.mark.parametrize(("after_ms", "counts"), [(HOUR, True), (HOUR + 1, False)])
def test_a_signal_in_a_pause_is_for_the_waits_that_were_not_over(after_ms: int, counts: bool) -> None:
    table = Table(
        Toy(
            Node("a", kind="signal", wait=Wait(signal="go", delay_ms=HOUR, has_default=True)),
            Node("b", kind="signal", wait=Wait(signal="go", delay_ms=3 * HOUR, has_default=True)),
        )
    )
    table.ask(requests.paused(table.state, {}, "", table.now_ms))
    table.now_ms += after_ms
    table.signal("go", 7)
    table.now_ms += 4 * HOUR
    table.ask(requests.resumed(table.state, {}, "", table.now_ms, "t"))
    assert table.state.output == ({"a": 7, "b": None} if counts else {"a": None, "b": 7})


def test_an_escalation_is_announced_and_lets_others_answer() -> None:
    approval = Approval(users=("ana",), escalations=(Escalation(after_ms=HOUR, roles=("ceo",)),))
    table = Table(approving(approval, delay_ms=3 * HOUR))
    table.rest()
    table.wake()
    assert table.last.event == ev.ESCALATED
    assert table.last.data["roles"] == ["ceo"]
    assert waits.may_answer(approval, table.state.slots["ok"], {"roles": ["ceo"]})
    table.rest()
    answer(table, "zoe", roles=("ceo",))
    assert table.state.status == "COMPLETED"


# -- children --------------------------------------------------------------------------------


def test_a_childs_id_is_readable_the_same_each_time_and_always_valid() -> None:
    assert waits.child_id("order-1", "ship") == "order-1-ship"
    assert waits.child_id("order-1", "ship:2") == "order-1-ship-2"
    assert waits.child_id("order-1", "ship:2:undo") == "order-1-ship-2-undo"
    assert waits.child_id("order-1", "ship:2", 3) == "order-1-ship-2-retry3"
    assert re.fullmatch("order-1-ship-it-[0-9a-f]{8}", waits.child_id("order-1", "ship-it"))
    assert re.fullmatch("order-2-ship-[0-9a-f]{8}", waits.child_id("order.2", "ship"))
    for slot in ("ship", "ship-it"):
        for parent in ("x" * 115, "x" * 128):
            name = waits.child_id(parent, slot)
            assert len(name) <= 128
            assert name == waits.child_id(parent, slot) != waits.child_id(parent, slot.replace("p", "o"))


def test_no_two_slots_have_children_of_one_id() -> None:
    """Of any executions, of any of their runs, at any attempt: whatever steps are called."""
    words = ("a", "b", "2", "undo", "retry2", "a2", "_", "run")
    parents = ["-".join(parts) for n in (1, 2, 3) for parts in product(words, repeat=n)]
    steps = [one for one in ("-".join(p) for n in (1, 2) for p in product(words, repeat=n)) if one[0] != "2"]
    slots = [f"{step}{rest}" for step in steps for rest in ("", ":2", ":undo", ":2:undo", ":run:1")]
    made: dict[str, tuple[str, str, int]] = {}
    for key in [*parents, *(f"{parent}.2" for parent in parents[:80])]:
        for what in product([key], slots, (1, 2)):
            assert made.setdefault(waits.child_id(*what), what) == what


@pytest.mark.parametrize(
    ("slot", "parent", "recorded", "following"),
    [
        ("ship-2", "x", "x-ship-2", "x-ship-2-retry2"),
        ("ship", "x.2", "x-2-ship", "x-2-ship-retry2"),
        ("ship", "x", "x-ship", "x-ship-retry2"),
        ("ship-2", "x", waits.child_id("x", "ship-2"), waits.child_id("x", "ship-2", 2)),
        ("ship-2", "x", "mine", "mine"),
    ],
)
def test_what_a_journal_calls_a_child_is_followed_by_its_like(
    slot: str, parent: str, recorded: str, following: str
) -> None:
    assert waits.next_child_id(recorded, parent, slot, 1) == following


def test_a_child_settles_its_slot_well_or_badly() -> None:
    def parent() -> Table:
        return Table(Toy(Node("sub", kind="child", wait=Wait(child=Child(workflow="other")))))

    table = parent()
    assert table.state.slots["sub"].name == "x1-sub"
    table.tell("sub", {"status": "COMPLETED", "output": 5})
    assert table.state.output == {"sub": 5}
    table = parent()
    table.tell("sub", {"status": "FAILED", "error": {"type": "Boom", "message": "no"}})
    assert table.state.error is not None
    assert (table.state.error.type, table.state.error.details["status"]) == ("ChildFailed", "FAILED")


# -- pause, cancel, terminate, retry ---------------------------------------------------------


def test_nothing_begins_between_a_pause_and_its_resume() -> None:
    table = Table(Toy(Node("a"), Node("b", "a")))
    table.ask(requests.paused(table.state, {"user_id": "ana"}, "lunch", table.now_ms))
    table.ok("a")
    assert (table.state.status, table.to_run) == ("PAUSED", ["a"])
    table.rest()
    assert (table.state.status, table.state.at_rest) == ("PAUSED", True)
    assert requests.paused(table.state, {}, "", table.now_ms) is None
    table.ask(requests.resumed(table.state, {}, "", table.now_ms, "task-9"))
    assert table.to_run == ["a", "b"]
    table.ok("b")
    assert table.state.status == "COMPLETED"


def test_a_draft_that_lost_against_a_pause_opens_nothing() -> None:
    table = Table(Toy(Node("a"), Node("b", "a")))
    draft = table.execution.attempted(Attempt(slot="a", started_ms=table.now_ms), table.now_ms)
    assert draft.data["next"] == ["b"]
    table.ask(requests.paused(table.state, {}, "", table.now_ms))
    rebased = rebase(draft, table.execution.state)
    assert rebased is not None
    table.record(rebased)
    assert table.state.open == []
    table.ask(requests.resumed(table.state, {}, "", table.now_ms, "t"))
    assert table.state.open == ["b"]


def test_a_cancel_undoes_what_was_done_or_not_as_asked() -> None:
    def halfway() -> Table:
        table = Table(Toy(Node("a", undo=True), Node("b", "a")))
        table.ok("a")
        return table

    table = halfway()
    table.ask(requests.cancel_requested(table.state, {"user_id": "ana"}, "why", True, table.now_ms, "t"))
    assert table.state.status == "COMPENSATING"
    table.ok("a:undo")
    assert (table.state.status, table.state.undone) == ("CANCELLED", ["a"])
    assert table.last.data["by"] == {"user_id": "ana"}
    table = halfway()
    table.ask(requests.cancel_requested(table.state, {}, "", False, table.now_ms, "t"))
    assert (table.state.status, table.state.not_undone) == ("CANCELLED", ["a"])
    assert requests.cancel_requested(table.state, {}, "", True, table.now_ms, "t") is None


def test_terminate_ends_it_as_it_is() -> None:
    table = Table(Toy(Node("a", undo=True), Node("b", "a")))
    table.ok("a")
    table.ask(requests.terminated(table.state, {}, "enough", table.now_ms))
    assert (table.state.status, table.state.not_undone) == ("CANCELLED", ["a"])


def test_terminate_names_what_was_done_whoever_did_it() -> None:
    far = StepPolicy(queue="far")
    sub = Node("sub", kind="child", wait=Wait(child=Child(workflow="w")))
    toy = Toy(Node("a"), sub, Node("q", policy=far), Node("told", policy=far), Node("open", policy=far))
    table = Table(toy)
    table.ok("a")
    table.tell("sub", {"status": "COMPLETED"})
    table.tell("q", {"attempt": 1})
    table.ask(requests.paused(table.state, {}, "", table.now_ms))
    table.tell("told", {"attempt": 1})
    table.tell("open", {"attempt": 1, "error": {"type": "Boom", "message": "no"}})
    table.ask(requests.terminated(table.state, {}, "", table.now_ms))
    assert sorted(table.state.not_undone) == ["a", "q", "sub", "told"]


def test_terminate_does_not_name_what_a_saga_has_undone() -> None:
    @flow("f")
    async def sure() -> None:
        await call("o.first", undo="o.undo", step_name="first")
        with contextlib.suppress(ValueError):
            async with saga():
                await call("o.second", undo="o.undo", step_name="second")
                raise ValueError("no")
        await signal("go")

    program = flow_of(sure)
    assert program is not None
    table = Table(program)
    table.ok("first", "second", "undo_second")
    table.ask(requests.terminated(table.state, {}, "", table.now_ms))
    assert table.state.not_undone == ["first"]


def test_terminate_names_each_turn_that_is_not_undone() -> None:
    each = {"id": "a", "uses": "o.a", "foreach": {"in": [1, 2, 3]}, "compensate": {"uses": "o.undo"}}
    steps = [each, {"id": "b", "uses": "o.b", "needs": ["a"]}]
    table = Table(plan.load({"id": "p", "version": "1", "steps": steps}))
    table.ok("a", "a:2", "a:3")
    table.fail("b", retryable=False)
    table.ok("a:3:undo")
    table.ask(requests.terminated(table.state, {}, "", table.now_ms))
    assert (table.state.undone, table.state.not_undone) == (["a"], ["a", "a"])


def test_the_limit_of_events_names_what_is_not_undone_yet() -> None:
    toy = Toy(Node("a", undo=True), Node("b", "a", undo=True), Node("c", "b", policy=UNDOES))
    table = Table(toy, limits=Limits(events_max=6))
    table.ok("a", "b")
    table.fail("c")
    table.ok("b:undo")
    assert table.state.status == "FAILED"
    assert (table.state.undone, table.state.not_undone) == (["b"], ["a"])


def test_a_failed_execution_can_be_tried_again_in_place() -> None:
    once = StepPolicy(retry=Retry(max_attempts=1))
    table = Table(Toy(Node("a"), Node("b", "a", policy=once)))
    table.ok("a")
    table.fail("b")
    assert table.state.status == "FAILED"
    table.ask(requests.retried(table.state, {}, table.now_ms, "t"))
    assert (table.state.status, table.state.open, table.state.slots["b"].attempt) == ("RUNNING", ["b"], 2)
    table.ok("b")
    assert table.state.status == "COMPLETED"
    with pytest.raises(TaskRejected, match="wpa rerun"):
        requests.retried(table.state, {}, table.now_ms, "t")


# -- all of it -------------------------------------------------------------------------------


def everything() -> Toy:
    once = StepPolicy(on_error="continue", retry=Retry(max_attempts=2, initial_ms=HOUR))
    return Toy(
        Node("a", undo=True),
        Node("nap", kind="timer", wait=Wait(delay_ms=HOUR)),
        Node("w", "a", kind="signal", wait=Wait(signal="go", delay_ms=2 * HOUR, has_default=True)),
        Node("ok", "nap", kind="approval", wait=Wait(approval=Approval(count=2), delay_ms=HOUR)),
        Node("sub", "a", kind="child", wait=Wait(child=Child(workflow="other"))),
        Node("far", "w", policy=StepPolicy(queue="gpu", retry=Retry(max_attempts=2))),
        Node("last", "sub", "far", policy=once, undo=True),
    )


ACTIONS = st.lists(
    st.sampled_from(
        ["ok", "fail", "go", "ana", "bob", "no", "child", "far", "time", "rest", "pause", "resume", "cancel",
         "terminate", "retry", "crash"]
    ),
    max_size=40,
)  # fmt: skip


def act(table: Table, action: str) -> None:
    """Whatever can happen to an execution, where it can happen at all."""
    state, now = table.state, table.now_ms
    lease = f"l{table.serial}"
    asked = {
        "pause": lambda: requests.paused(state, {}, "", now),
        "resume": lambda: requests.resumed(state, {}, "", now, lease),
        "cancel": lambda: requests.cancel_requested(state, {}, "", True, now, lease),
        "terminate": lambda: requests.terminated(state, {}, "", now),
        "retry": lambda: requests.retried(state, {}, now, lease),
    }
    attempt = state.slots["far"].attempt if "far" in state.slots else 1
    told: dict[str, Callable[[], object]] = {
        "go": lambda: table.signal("go", {"n": table.serial}),
        "ana": lambda: answer(table, "ana"),
        "bob": lambda: answer(table, "bob"),
        "no": lambda: answer(table, "no", approved=False),
        "child": lambda: table.tell("sub", {"status": "COMPLETED", "output": 1}, id="child"),
        "far": lambda: table.tell("far", {"attempt": attempt, "output": 2}, id=f"far{attempt}"),
    }
    if action in asked:
        table.ask(asked[action]())
    elif action in told:
        told[action]()
    else:
        happen(table, action)


def happen(table: Table, action: str) -> None:
    state = table.state
    local = [slot for slot in state.open if state.slots[slot].kind == "step"]
    if action in ("ok", "fail") and local and not state.at_rest and state.status != "PAUSED":
        (table.ok if action == "ok" else table.fail)(local[0])
    elif action == "time":
        table.now_ms += HOUR // 2
        if not state.at_rest:
            table.follow()
        elif state.wake_at and state.status in ("WAITING", "COMPENSATING"):
            table.wake()
    elif action == "rest" and not state.at_rest:
        if not any(state.slots[slot].in_flight for slot in state.open):
            table.rest()
    elif action == "crash" and not state.at_rest:
        table.crash()


@given(ACTIONS)
def test_whatever_comes_in_whatever_order_the_journal_is_the_state(actions: list[str]) -> None:
    """I3, I6, I10: a legal chain, whose fold is the state, and over which the program asks for the same."""
    table = Table(everything())
    for action in actions:
        with contextlib.suppress(TaskRejected):  # refused with a reason, and nothing recorded
            act(table, action)
        assert encode_state(table.folded()) == encode_state(table.state)
        if is_terminal(table.state.status):
            continue
        again = Execution.rebuild(everything(), decode_state(encode_state(table.folded())), table.limits)
        assert again.wants == table.execution.wants
        assert again.wake_ms() == table.execution.wake_ms()
        if not table.state.at_rest and table.state.status == "RUNNING":
            assert again.follow_up(table.now_ms) is None
