"""What people and programs ask of the executions of a world, at any moment, and more than once."""

from __future__ import annotations

import random
from typing import Any

from tests.sim.plans import APPROVERS, SIGNALS
from tests.sim.world import SimWorld

__all__ = ["random_ask", "settle_all"]


def random_ask(world: SimWorld, executions: list[str]) -> dict[str, Any]:
    """One task, for one of ``executions`` or of their children."""
    chance = world.chance
    names = sorted({*executions, *world.executions()})
    execution = chance.choice(names)
    kind = chance.choices(list(_WEIGHTS), list(_WEIGHTS.values()))[0]
    task = {"type": f"workflow_{kind}", "execution_id": execution, **_body(kind, world, execution)}
    return task | {"forged": True} if kind in ("child_ended", "step_result") else task


_WEIGHTS = {
    "signal": 8,
    "answer": 6,
    "pause": 4,
    "resume": 5,
    "cancel": 2,
    "terminate": 1,
    "retry": 3,
    "child_ended": 1,
    "step_result": 1,
}


def _body(kind: str, world: SimWorld, execution: str) -> dict[str, Any]:
    chance = world.chance
    if kind == "signal":
        return signal(chance.choice(SIGNALS), chance.choice(("", "", "one", "two")))
    if kind == "answer":
        steps = _open(world, execution, "approval") or ["s0"]
        return answer(chance.choice(steps), chance.choice(APPROVERS), chance.random() < 0.8)
    if kind == "cancel":
        return {"payload": {"compensate": chance.random() < 0.7}}
    if kind == "child_ended":  # forged, or for something long gone
        return {"payload": {"slot": "s0", "child": f"{execution}-s9", "status": "COMPLETED"}}
    if kind == "step_result":
        far = _open(world, execution, "remote") or ["s0"]
        key = "another:run:1"
        return {"payload": {"slot": chance.choice(far), "attempt": 99, "key": key, "output": "forged"}}
    return {}


def signal(name: str, id: str = "") -> dict[str, Any]:
    return {"payload": {"signal": name, "payload": {"n": name}, "id": id}}


def answer(slot: str, user: str, approved: bool = True) -> dict[str, Any]:
    return {"metadata": {"user_id": user}, "payload": {"step": slot, "approved": approved}}


def _open(world: SimWorld, execution: str, kind: str) -> list[str]:
    """Slots of a kind that may be open, as the journal's events say."""
    found = []
    for _, event in world.journal(execution):
        waits = event.data.get("waits", {})
        found += [slot for slot, about in waits.items() if about["kind"] == kind]
    return found


async def settle_all(world: SimWorld, execution: str) -> None:
    """Everything that an execution may still wait for."""
    asks: list[tuple[str, dict[str, Any]]] = [("resume", {})]
    asks += [("signal", signal(name)) for name in SIGNALS]
    for slot in _open(world, execution, "approval"):
        asks += [("answer", answer(slot, user)) for user in ("ana", "bob")]
    for kind, body in asks:
        await world.publish({"type": f"workflow_{kind}", "execution_id": execution, **body})


async def send(world: SimWorld, task: dict[str, Any], chance: random.Random) -> None:
    """Publish a task; now and then twice, as one does whose first try was not answered."""
    await world.publish(task)
    if chance.random() < 0.15:
        await world.publish(task)
