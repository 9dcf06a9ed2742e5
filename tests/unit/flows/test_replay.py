"""Whatever a flow does and however it is settled: a run that is told the same wants the same."""

from __future__ import annotations

import asyncio
import random
import uuid
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.flows.table import Table
from wpa.errors import StepFailed
from wpa.flows import approval, call, child, flow, patched, saga, side_effect, signal
from wpa.kernel.program import Waiting
from wpa.model.events import Failure

Shape = Any

SHAPES: st.SearchStrategy[Shape] = st.recursive(
    st.sampled_from(
        ["call", "undoable", "sleep", "signal", "approval", "child", "chance", "effect", "patch", "raise"]
    ),
    lambda inner: st.tuples(
        st.sampled_from(
            ["seq", "gather", "group", "first", "timeout", "saga", "try", "finally", "background"]
        ),
        st.lists(inner, min_size=1, max_size=4),
    ),
    max_leaves=12,
)


async def leaf(shape: str) -> Any:
    match shape:
        case "call":
            return (await call("a.do", seen=str(asyncio.get_running_loop().time()))).get("did")
        case "undoable":
            return (await call("b.do", undo="b.undo")).get("did")
        case "sleep":
            await asyncio.sleep(random.randint(1, 50))
        case "signal":
            return await signal("go", timeout=30, default=None)
        case "approval":
            return await approval("?")
        case "child":
            return await child("sub", n=1)
        case "chance":
            return (await call("c.do", id=str(uuid.uuid4()), x=random.random())).get("did")
        case "effect":
            return await side_effect(lambda: str(uuid.uuid4()))
        case "patch":
            return patched("p")
        case "raise":
            raise StepFailed("raised", type="Raised")
    return None


async def act(shape: Shape) -> Any:  # noqa: C901  one branch for each kind of shape
    if isinstance(shape, str):
        return await leaf(shape)
    kind, inner = shape
    match kind:
        case "gather":
            return await asyncio.gather(*(act(each) for each in inner))
        case "group":
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(act(each)) for each in inner]
            return [task.result() for task in tasks]
        case "first":
            tasks = [asyncio.create_task(act(each)) for each in inner]
            done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in pending:
                task.cancel()
            return [await task for task in done]
        case "timeout":
            try:
                async with asyncio.timeout(20):
                    return [await act(each) for each in inner]
            except TimeoutError:
                return "late"
        case "saga":
            async with saga():
                return [await act(each) for each in inner]
        case "try":
            try:
                return [await act(each) for each in inner]
            except Exception as error:
                return type(error).__name__
        case "finally":
            try:
                return await act(inner[0])
            finally:
                for each in inner[1:]:
                    await act(each)
        case "background":
            for each in inner:
                asyncio.create_task(act(each))  # noqa: RUF006
            await asyncio.sleep(0)
            return None
    return [await act(each) for each in inner]


@flow("shaped")
async def shaped(shape: Any) -> Any:
    return await act(shape)


@settings(max_examples=100, deadline=None)
@given(SHAPES, st.randoms(use_true_random=False))
def test_a_replay_wants_the_same(shape: Shape, chance: random.Random) -> None:
    table = Table(shaped, {"shape": shape})
    turns = 0
    cancel_at = chance.randrange(12)
    while isinstance(table.outcome, Waiting) and turns < 60:
        if chance.random() < 0.6:
            table.crash()
        if turns == cancel_at:
            cancel_at = -1
            table.cancel(compensate=chance.random() < 0.7)
            continue
        slot = chance.choice(table.slots)
        kind = table.wants[slot].kind
        after_ms = chance.randint(0, 20_000)
        if kind == "timer":
            table.settle(slot, None, after_ms=after_ms)
        elif chance.random() < 0.2:
            table.settle(slot, error=Failure(type="Boom", message=slot), after_ms=after_ms)
        else:
            table.settle(slot, {"did": slot}, after_ms=after_ms)
        turns += 1
    if isinstance(table.outcome, Waiting):
        table.crash()
    else:
        for slot in table.slots:  # calls that end first, for they may have to be undone
            table.crash()
            table.ok(slot)
            turns += 1
    progress = table.run.progress()
    assert progress.total == len(table.run.steps())
    assert progress.completed + progress.failed == turns
    if not isinstance(table.outcome, Waiting):
        assert progress.percentage == 100
        assert table.wants == {}
