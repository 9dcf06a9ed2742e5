"""What people and programs ask of the executions of a world, at any moment, and more than once."""

from __future__ import annotations

from typing import Any

from tests.sim.plans import APPROVERS, LIKE_A_REFERENCE, SIGNALS
from tests.sim.world import Key, SimWorld

__all__ = ["answer", "random_ask", "send", "settle_all", "signal"]


def random_ask(world: SimWorld, executions: list[Key]) -> tuple[str, dict[str, Any]]:
    """A tenant and one task, for one of ``executions`` or of their children."""
    chance = world.chance
    begun = world.executions()
    may_begin = begun if begun and chance.random() < 0.8 else sorted({*executions, *begun})
    tenant, execution = chance.choice(may_begin)
    kind = chance.choices(list(_WEIGHTS), list(_WEIGHTS.values()))[0]
    if kind == "rerun":
        left = world.left()
        ended = [key for key in begun if key not in left]
        if ended and chance.random() < 0.8:  # of the others, nothing is taken over
            tenant, execution = chance.choice(ended)
        return tenant, _rerun(world, tenant, execution)
    body = _body(kind, world, tenant, execution)
    task = {"type": f"workflow_{kind}", "execution_id": execution, **body}
    return tenant, task | {"forged": True} if kind in ("child_ended", "step_result") else task


_WEIGHTS = {
    "signal": 8,
    "answer": 6,
    "pause": 5,
    "resume": 5,
    "cancel": 2,
    "terminate": 1,
    "retry": 4,
    "migrate": 3,
    "rerun": 2,
    "child_ended": 1,
    "step_result": 1,
}


def _body(kind: str, world: SimWorld, tenant: str, execution: str) -> dict[str, Any]:
    chance = world.chance
    if kind == "signal":
        return signal(chance.choice(SIGNALS), chance.choice(("", "", "one", "child:s1:1:1")))
    if kind == "answer":
        steps = _open(world, tenant, execution, "approval") or ["s0"]
        return answer(chance.choice(steps), chance.choice(APPROVERS), chance.random() < 0.8)
    if kind == "cancel":
        return {"payload": {"compensate": chance.random() < 0.7}}
    if kind == "migrate":
        return {"payload": {"version": chance.choice(("2", "2", "2", "1", "9"))}}
    if kind == "child_ended":  # forged, or for something long gone
        return {"payload": {"slot": "s0", "child": f"{execution}-s9", "status": "COMPLETED"}}
    if kind == "step_result":
        far = _open(world, tenant, execution, "remote") or ["s0"]
        key = "another:run:1"
        return {"payload": {"slot": chance.choice(far), "attempt": 99, "key": key, "output": "forged"}}
    return {}


def _rerun(world: SimWorld, tenant: str, execution: str) -> dict[str, Any]:
    """A new execution from what another one has settled, as the service's verb would start it."""
    events = world.journal(tenant, execution)
    started = events[0][1] if events else None
    return {
        "type": "workflow_start",
        "workflow_id": started.workflow_id if started else "sim",
        "version": started.data["version"] if started else "",
        "execution_id": f"{execution}-again",
        "fork": {"execution_id": execution, "step": world.chance.choice(("", "s0", "s1", "s2"))},
        "payload": {"input_data": started.data["input"] if started else {}},
        "rerun": True,
    }


def signal(name: str, id: str = "") -> dict[str, Any]:
    return {"payload": {"signal": name, "payload": {"n": name, "output": LIKE_A_REFERENCE}, "id": id}}


def answer(slot: str, user: str, approved: bool = True) -> dict[str, Any]:
    return {"metadata": {"user_id": user}, "payload": {"step": slot, "approved": approved}}


def _open(world: SimWorld, tenant: str, execution: str, kind: str) -> list[str]:
    """Slots of a kind that may be open, as the journal's events say."""
    found = []
    for _, event in world.journal(tenant, execution):
        waits = event.data.get("waits", {})
        found += [slot for slot, about in waits.items() if about["kind"] == kind]
    return found


def settle_all(world: SimWorld, tenant: str, execution: str) -> None:
    """Everything that an execution may still wait for."""
    kinds = world.waits_for((tenant, execution))
    asks: list[tuple[str, dict[str, Any]]] = [] if kinds else [("resume", {})]
    if not kinds or "signal" in kinds:
        asks += [("signal", signal(name)) for name in SIGNALS]
    if not kinds or "approval" in kinds:
        for slot in _open(world, tenant, execution, "approval"):
            asks += [("answer", answer(slot, user)) for user in ("ana", "bob")]
    for kind, body in asks:
        world.publish({"type": f"workflow_{kind}", "execution_id": execution, **body}, tenant)


def send(world: SimWorld, tenant: str, task: dict[str, Any], version: str = "") -> None:
    """Publish a task; now and then twice, as one does whose first try was not answered."""
    world.publish(task, tenant, version)
    if world.chance.random() < 0.15:
        world.faults["a task sent twice"] += 1
        world.publish(task, tenant, version)
