"""A long history is told to its program in pieces: the others of its worker keep their leases meanwhile."""

from __future__ import annotations

import asyncio
from typing import Any, cast

from tests.unit.flows.table import EPOCH_MS
from wpa.engine.loading import revive, revive_to_show
from wpa.engine.payloads import Payloads
from wpa.flows import call, flow, flow_of
from wpa.model.limits import Limits
from wpa.model.state import Cleanup, Slot, State
from wpa.model.times import rfc3339

STEPS = 1_000
NOW = rfc3339(EPOCH_MS)


@flow("lengthy")
async def lengthy(steps: int) -> None:
    try:
        for n in range(steps):
            await call("a.do", n=n)
    finally:
        for n in range(steps):
            await call("b.do", n=n)


def state_of(cleans: bool) -> State:
    program = flow_of(lengthy)
    assert program is not None
    names = [f"a_do:{n}" if n > 1 else "a_do" for n in range(1, STEPS)]
    if cleans:
        names += [f"b_do:{n}" if n > 1 else "b_do" for n in range(1, STEPS)]
    done: dict[str, Any] = {"status": "completed", "opened_at": NOW, "finished_at": NOW}
    return State(
        tenant="t",
        workflow="lengthy",
        execution="x",
        version="1",
        definition_hash=program.hash,
        start_hash="",
        created_at=NOW,
        status="RUNNING",
        input={"steps": STEPS},
        slots={name: Slot(id=name, uses=f"{name[0]}.do", **done) for name in names},
        order=names,
        cleanup=Cleanup(after=STEPS - 1, began_at=NOW, until=NOW, compensate=True) if cleans else None,
    )


async def test_others_have_their_turns_while_a_long_history_is_told() -> None:
    program = flow_of(lengthy)
    assert program is not None
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    payloads = cast("Payloads", None)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(other())
        driven, _ = await revive(program, state_of(False), Limits(), payloads)
        heard = turns
        assert heard >= 4
        cleaning, _ = await revive(program, state_of(True), Limits(), payloads)
        shown = await revive_to_show(program, state_of(True), Limits(), payloads)
        assert turns - heard >= 8
        task.cancel()
    assert list(driven.wants) == [f"a_do:{STEPS}"]
    assert shown is not None
    assert list(cleaning.wants) == list(shown.wants) == [f"b_do:{STEPS}"]
