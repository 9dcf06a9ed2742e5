"""The same task once more, as after a lost ack: it is known again by its id, and nothing is made of it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from wpa.adapters.memory import VirtualClock
from wpa.engine.asks import decide
from wpa.errors import Conflict, Problem, TaskRejected
from wpa.kernel.draft import seal
from wpa.kernel.fold import fold
from wpa.model.state import Slot, State
from wpa.model.tasks import (
    ANSWER,
    CHILD_ENDED,
    PAUSE,
    RESUME,
    SIGNAL,
    STEP_RESULT,
    TERMINATE,
    AnswerPayload,
    AnswerTask,
    ChildEndedPayload,
    ChildEndedTask,
    Envelope,
    ReasonTask,
    SignalPayload,
    SignalTask,
    StepResultPayload,
    StepResultTask,
    TaskMetadata,
)


class Inline:
    """Keeps every payload where it is."""

    async def store(self, tenant: str, execution: str, value: Any) -> Any:
        return value


class AnySignal:
    """A program that knows every signal."""

    def check_signal(self, name: str, payload: Any) -> list[Problem]:
        return []


class Library:
    async def program(self, tenant: str, workflow: str, version: str) -> AnySignal:
        return AnySignal()


SERVICES: Any = SimpleNamespace(clock=VirtualClock(), payloads=Inline(), library=Library())
FIRST, SECOND = "1a-1", "1a-2"
"""Identities of messages."""


def running() -> State:
    return State(
        tenant="t",
        workflow="w",
        version="1",
        execution="x",
        definition_hash="",
        start_hash="",
        created_at="2026-11-20T10:00:00.000Z",
        lease="1",
        seq=1,
    )


async def ask(state: State, task: Envelope, identity: str) -> bool:
    """Whether there was anything to record; it is, then."""
    draft = await decide(SERVICES, state, task, identity)
    if draft is not None:
        fold(state, seal(draft, state, id=identity, worker="w", epoch=state.epoch))
    return draft is not None


async def test_a_pause_that_is_delivered_again_after_the_resume_is_none() -> None:
    state, pause = running(), ReasonTask(type=PAUSE, execution_id="x")
    assert await ask(state, pause, FIRST)
    assert await ask(state, ReasonTask(type=RESUME, execution_id="x"), SECOND)
    assert not await ask(state, pause, FIRST)
    assert state.status == "RUNNING"
    assert await ask(state, pause, "1a-3")


async def test_a_task_id_names_a_task_over_several_messages() -> None:
    state = running()
    assert await ask(state, ReasonTask(type=PAUSE, execution_id="x", task_id="p"), FIRST)
    assert await ask(state, ReasonTask(type=RESUME, execution_id="x", task_id="p"), SECOND)
    assert not await ask(state, ReasonTask(type=PAUSE, execution_id="x", task_id="p"), "1a-3")


async def test_what_was_recorded_is_not_rejected_when_it_comes_again_after_the_end() -> None:
    state, task = running(), ReasonTask(type=RESUME, execution_id="x")
    state.status = "PAUSED"
    assert await ask(state, task, FIRST)
    state.status = "COMPLETED"
    assert not await ask(state, task, FIRST)
    with pytest.raises(TaskRejected):
        await ask(state, task, SECOND)


async def test_a_terminate_comes_twice_and_counts_once() -> None:
    state, terminate = running(), ReasonTask(type=TERMINATE, execution_id="x")
    assert await ask(state, terminate, FIRST)
    assert not await ask(state, terminate, FIRST)
    assert not await ask(state, terminate, SECOND)


async def test_an_answer_that_was_given_is_not_rejected_when_the_approval_is_over() -> None:
    state = running()
    state.slots["ok"] = Slot(id="ok", kind="approval", status="completed")
    state.signal_ids.append("answer:ok:ana")
    payload = AnswerPayload(step="ok", approved=True)
    mine = AnswerTask(type=ANSWER, execution_id="x", payload=payload, metadata=TaskMetadata(user_id="ana"))
    assert not await ask(state, mine, FIRST)
    with pytest.raises(TaskRejected, match="waits for no approval"):
        await ask(
            state,
            AnswerTask(type=ANSWER, execution_id="x", payload=payload, metadata=TaskMetadata(user_id="bob")),
            SECOND,
        )


async def test_only_the_result_of_the_attempt_that_is_under_way_is_recorded() -> None:
    state = running()
    state.slots["far"] = Slot(id="far", kind="remote", attempt=2)
    state.open.append("far")

    def result(attempt: int) -> StepResultTask:
        return StepResultTask(
            type=STEP_RESULT, execution_id="x", payload=StepResultPayload(slot="far", attempt=attempt)
        )

    assert not await ask(state, result(1), FIRST)
    with pytest.raises(Conflict, match=r"\$\.payload\.attempt is 3, but far of execution x is at attempt 2"):
        await ask(state, result(3), SECOND)
    assert await ask(state, result(2), "1a-3")
    assert not await ask(state, result(2), "1a-4")


def signal(id: str) -> SignalTask:
    return SignalTask(type=SIGNAL, execution_id="x", payload=SignalPayload(signal="other", id=id))


CHILD_END = ChildEndedTask(
    type=CHILD_ENDED,
    execution_id="x",
    payload=ChildEndedPayload(slot="k", child="x-k", status="COMPLETED"),
)
STEP_END = StepResultTask(
    type=STEP_RESULT, execution_id="x", payload=StepResultPayload(slot="far", attempt=1)
)
PAUSED = ReasonTask(type=PAUSE, execution_id="x", task_id="p")


@pytest.mark.parametrize(
    ("id", "task"),
    [("child:k:1:1", CHILD_END), ("result:far:1:1", STEP_END), ("workflow_pause:p", PAUSED)],
)
async def test_a_signal_has_no_id_of_what_else_is_told_or_asked(id: str, task: Envelope) -> None:
    state = running()
    state.slots["k"] = Slot(id="k", kind="child", name="x-k")
    state.slots["far"] = Slot(id="far", kind="remote")
    state.open += ["k", "far"]
    for given in (id, f"signal:{id}"):
        assert await ask(state, signal(given), FIRST)
        assert not await ask(state, signal(given), SECOND)
    assert await ask(state, task, "1a-3")
    assert not await ask(state, task, "1a-4")


async def test_a_signal_s_id_is_recorded_as_it_was_given() -> None:
    state = running()
    for given in ("bank-4711", "bank:4711", "answer", "child#2"):
        assert await ask(state, signal(given), FIRST)
        assert given in state.signal_ids
