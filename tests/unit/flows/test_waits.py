from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.unit.flows.table import Table, run
from wpa.errors import StepFailed
from wpa.flows import TimedOut, approval, call, child, continue_as_new, escalate, flow, info, signal
from wpa.kernel.program import Approval, Child, Escalation, Wait
from wpa.model.events import Failure
from wpa.testing import run as everywhere


@flow("sub")
async def sub(n: int) -> list[int]:
    return [n]


def only_want(declared: Any) -> Any:
    [want] = Table(declared).wants.values()
    return want


def test_a_signal_is_waited_for() -> None:
    @flow("signals")
    async def signals() -> Any:
        first = await signal("approved", timeout=3600, default={"by": "nobody"})
        second = await signal("approved")
        return [first.by, second]

    table = Table(signals)
    want = table.wants["signal_approved"]
    assert (want.kind, want.uses, want.policy.on_error) == ("signal", "core.wait", "continue")
    assert want.wait == Wait(
        signal="approved", delay_ms=3_600_000, has_default=True, default={"by": "nobody"}
    )
    table.settle("signal_approved", {"by": "ann"})
    assert table.wants["signal_approved:2"].wait == Wait(signal="approved")
    table.settle("signal_approved:2", 5)
    assert table.output == ["ann", 5]


def test_a_signal_that_does_not_come_in_time_raises_both_errors() -> None:
    @flow("late")
    async def late() -> list[str]:
        seen = []
        try:
            await signal("go", timeout=1)
        except TimeoutError as error:
            assert isinstance(error, TimedOut)
            seen.append(str(error))
        try:
            await signal("go", timeout=1)
        except StepFailed as error:
            seen.append(error.type)
        return seen

    table = Table(late)
    for slot in ("signal_go", "signal_go:2"):
        table.settle(slot, error=Failure(type="Timeout", message="no signal go within 1 s"))
    assert table.output == ["no signal go within 1 s", "Timeout"]


def test_an_approval_says_who_may_answer() -> None:
    @flow("approvals")
    async def approvals() -> Any:
        verdict = await approval(
            "Ship it?",
            roles=["lead"],
            count=2,
            timeout=60,
            escalations=[escalate(50, roles=["board"]), escalate(30, users=["cto"])],
        )
        return [verdict.approved, verdict.answers[0].by]

    table = Table(approvals)
    want = table.wants["approval"]
    assert (want.kind, want.uses) == ("approval", "core.approval")
    assert want.wait.approval == Approval(
        roles=("lead",),
        count=2,
        message="Ship it?",
        escalations=(
            Escalation(after_ms=30_000, users=("cto",)),
            Escalation(after_ms=50_000, roles=("board",)),
        ),
    )
    table.settle("approval", {"approved": True, "answers": [{"by": "ann"}]})
    assert table.output == [True, "ann"]


def test_children_are_started_with_input() -> None:
    @flow("parent")
    async def parent() -> Any:
        one = child(sub, n=1)
        two = child("other", {"k": 2}, version="3", execution_id="mine", on_cancel="abandon")
        return await asyncio.gather(one, two)

    table = Table(parent)
    assert table.wants["child_sub"].wait.child == Child(workflow="sub", input={"n": 1})
    assert table.wants["child_other"].wait.child == Child(
        workflow="other", version="3", input={"k": 2}, execution="mine", on_cancel="abandon"
    )
    table.settle("child_other", {"x": 1})
    table.settle("child_sub", [1])
    assert table.output == [[1], {"x": 1}]


def test_a_child_that_fails_raises() -> None:
    @flow("parent")
    async def parent() -> Any:
        try:
            await child(sub, n=1)
        except StepFailed as error:
            return [error.type, error.details["status"]]

    table = Table(parent)
    table.settle("child_sub", error=Failure(type="ChildFailed", message="x", details={"status": "FAILED"}))
    assert table.output == ["ChildFailed", "FAILED"]


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: signal("no spaces"), "InvalidName", "signal 'no spaces'"),
        (lambda: signal("go", timeout=0), "ValueError", "timeout must be"),
        (lambda: approval(users="ann"), "TypeError", "a list of names"),
        (lambda: approval(count=0), "ValueError", "count must be"),
        (lambda: approval(name="x y"), "InvalidName", "step id"),
        (lambda: child("no spaces"), "InvalidName", "workflow id"),
        (lambda: child(len), "TypeError", "a function declared with @flow"),
        (lambda: child("sub", {"a": 1}, b=2), "TypeError", "not both"),
        (lambda: child("sub", on_cancel="what"), "ValueError", "on_cancel"),
    ],
)
def test_waits_that_can_not_be_made_say_why(make: Any, error: str, message: str) -> None:
    @flow("wrong")
    async def wrong() -> None:
        await make()

    failure = Table(wrong).error
    assert failure.type == error
    assert message in failure.message


def test_the_loser_of_a_race_is_dropped() -> None:
    @flow("race")
    async def race() -> str:
        first = asyncio.ensure_future(signal("go"))
        second = asyncio.ensure_future(call("a.do"))
        done, pending = await asyncio.wait([first, second], return_when=asyncio.FIRST_COMPLETED)
        for each in pending:
            each.cancel()
        await call("b.do")
        return "signal" if first in done else "call"

    table = Table(race)
    table.settle("signal_go", {})
    assert table.outcome.dropped == ("a_do",)
    table.ok("b_do")
    assert table.output == "signal"
    run(race)
    run(race, newest=True)


def test_continue_as_new_leaves_with_other_input() -> None:
    @flow("forever")
    async def forever(n: int = 0) -> None:
        try:
            watcher = asyncio.create_task(signal("stop"))
            await call("a.do", n=n)
            try:
                continue_as_new(n=n + 1)
            except Exception:
                raise AssertionError("no Exception") from None
        finally:
            watcher.cancel()

    table = Table(forever, {"n": 4})
    table.ok("a_do")
    assert table.continued == {"n": 5}
    assert table.outcome.dropped == ("signal_stop",)
    assert run(forever).continued == {"n": 1}


def test_a_flow_knows_its_execution() -> None:
    @flow("knowing")
    async def knowing() -> list[str]:
        return [info().id, info().tenant, info().workflow]

    assert Table(knowing).output == ["x1", "acme", "knowing"]


def test_what_a_flow_does_to_what_it_is_told_changes_nothing_that_is_recorded() -> None:
    @flow("greedy")
    async def greedy() -> list[str]:
        who = info().metadata.pop("user_id"), info().metadata["roles"].pop()
        await call("a.do", who=who)
        await asyncio.sleep(60)
        return [*who]

    told = {"user_id": "ana", "roles": ["board", "finance"]}
    result = everywhere(greedy, metadata=told, mocks={"a.do": None}, crash_everywhere=True)
    assert result.output == ["ana", "finance"]
    assert result.events[0].data["metadata"]["roles"] == ["board", "finance"]


def test_long_workflow_ids_make_step_ids() -> None:
    @flow("long")
    async def long() -> None:
        await child("w" * 64)

    assert len(only_want(long).step) == 64
