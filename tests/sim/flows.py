"""A flow that does what its input says, so that random inputs make random flows."""

from __future__ import annotations

import asyncio
import contextlib
import random
from typing import Any

from wpa import (
    StepFailed,
    approval,
    call,
    child,
    continue_as_new,
    flow,
    now,
    patched,
    saga,
    side_effect,
    signal,
)

__all__ = ["FLOW", "act", "input_for", "older"]

FLOW = "act"


@flow(FLOW)
async def act(acts: list[Any], rounds: int = 1) -> Any:
    """Play ``acts`` one after the other, ``rounds`` times, with a new history each time."""
    knew = patched("act")
    done = [await _play(one) for one in acts]
    assert knew, "its code has said so from the beginning"
    if rounds > 1:
        continue_as_new(acts=acts, rounds=rounds - 1)
    return done


@flow(FLOW, version="0")
async def older(acts: list[Any], rounds: int = 1) -> Any:
    """The flow as it was before somebody changed its code: what one has begun, the other can't go on with."""
    return [await _play(one) for one in reversed(acts)]


async def _play(one: Any) -> Any:
    return await (_block(one) if "acts" in one else _wait(one["kind"], one["about"], one.get("options", {})))


async def _wait(kind: str, about: Any, options: Any) -> Any:
    if kind == "call":
        return await call("sim.work", **about, **options)
    if kind == "sleep":
        await asyncio.sleep(about["s"])
        return now().isoformat()
    if kind == "signal":
        return await signal(about["name"], timeout=about["timeout"], default="none")
    if kind == "approval":
        return await approval("?", users=["ana", "bob"], timeout=about["timeout"], default=None)
    if kind == "child":
        return await child(about["workflow"], {"mark": about["mark"]})
    if kind == "chance":
        if random.random() < 0.5:
            await asyncio.sleep(random.choice((0.2, 20)))
        return await call("sim.work", step_name=f"work-{random.choice('abc')}", **about)
    return await side_effect(lambda: random.randrange(1_000))


async def _block(one: Any) -> Any:
    kind, about, acts = one["kind"], one["about"], one["acts"]
    if kind == "gather":
        return await asyncio.gather(*(_play(each) for each in acts))
    if kind == "first":
        tasks = [asyncio.create_task(_play(each)) for each in acts]
        done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in pending:
            task.cancel()
        return [number for number, task in enumerate(tasks) if task in done and not task.exception()]
    if kind == "within":
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(about["s"]):
                return [await _play(each) for each in acts]
        return "late"
    if kind == "cleanup":
        return await _cleaning_up(acts, about["s"])
    if kind == "shield":
        return await asyncio.shield(_ends(acts))
    if kind == "saga":
        async with saga():
            return [await _play(each) for each in acts]
    try:  # "try"
        return [await _play(each) for each in acts]
    except StepFailed as error:
        return error.type


async def _ends(acts: list[Any]) -> list[str]:
    """How each of them ends; nothing is raised that nobody might wait for."""
    ends = await asyncio.gather(*(_play(each) for each in acts), return_exceptions=True)
    return [type(end).__name__ for end in ends]


async def _cleaning_up(acts: list[Any], swallow_s: float) -> Any:
    """The first is what is done; the others clean up after it, also after a cancel, which may be swallowed."""
    try:
        return await _play(acts[0])
    except asyncio.CancelledError:
        if swallow_s < 1:
            raise
        await asyncio.sleep(swallow_s)
    finally:
        for each in acts[1:]:
            await _play(each)


def input_for(chance: random.Random, mark: str) -> dict[str, Any]:
    """The input of a random flow; its steps and children get ``mark``."""
    acts = [_act(chance, mark, 0) for _ in range(chance.randint(1, 3))]
    return {"acts": acts, "rounds": chance.choice((1, 1, 1, 2, 3))}


def _act(chance: random.Random, mark: str, depth: int) -> dict[str, Any]:
    if depth < 2 and chance.random() < 0.4:
        kind = chance.choice(("gather", "first", "within", "saga", "try", "cleanup", "shield"))
        inner = [_act(chance, mark, depth + 1) for _ in range(chance.randint(1, 3))]
        return {"kind": kind, "about": {"s": chance.choice((0.05, 3, 90))}, "acts": inner}
    kind = chance.choice(("call", "call", "call", "sleep", "signal", "approval", "child", "effect", "chance"))
    if kind == "call":
        return {"kind": kind, **_call(chance, mark)}
    about: dict[str, Any] = {}
    if kind == "sleep":
        about = {"s": chance.choice((0, 0.7, 2.5, 60, 3_600))}
    elif kind == "signal":
        about = {"name": chance.choice(("go", "come")), "timeout": chance.choice((0.5, 5, 600))}
    elif kind == "approval":
        about = {"timeout": chance.choice((5, 600))}
    elif kind == "child":
        about = {"workflow": chance.choice(("quick", "slow", "bad", "nope")), "mark": mark}
    elif kind == "chance":
        about = {"ms": chance.choice((0, 20)), "fail": 0, "mark": mark, "fatal": False}
    return {"kind": kind, "about": about}


def _call(chance: random.Random, mark: str) -> dict[str, Any]:
    about = {"ms": chance.choice((0, 1, 20, 1_500)), "fail": chance.choice((0, 0, 0, 1, 2)), "mark": mark}
    options: dict[str, Any] = {"retry": chance.randint(1, 3)}
    if chance.random() < 0.5:
        options["undo"] = "sim.undo"
    if chance.random() < 0.2:
        options["queue"] = "far"
    return {"about": {**about, "fatal": chance.random() < 0.06}, "options": options}
