"""Calm worlds: scenarios in which nothing goes wrong but what they have go wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

from tests.sim.chaos import LAG_MS, Chaos
from tests.sim.checks import check_journal
from tests.sim.plans import version_of
from tests.sim.simulation import FLOWS
from tests.sim.world import TENANT, SimWorld
from wpa.model.state import State

__all__ = [
    "HOUR", "SECOND", "Scenario", "ask", "calling", "events_of", "lagging", "passing", "plan_of", "play", "start",
    "state_of", "work",
]  # fmt: skip

Scenario = Callable[[SimWorld], None]
SECOND, HOUR = 1_000, 3_600_000


def play(scenario: Scenario, *documents: dict[str, Any], skew_ms: int = 0) -> SimWorld:
    """Play a scenario in a world with one worker, on which nothing goes wrong by itself."""
    world = SimWorld(0, FLOWS)
    world.skew_ms = skew_ms
    try:
        world.deploy(map(version_of, documents))
        world.add_node()
        scenario(world)
    finally:
        world.close()
    return world


def plan_of(*steps: dict[str, Any], id: str = "sim", **more: Any) -> dict[str, Any]:
    return {"id": id, "version": "1", "steps": list(steps), **more}


def work(id: str, *needs: str, ms: int = 1, undo: bool = False, **more: Any) -> dict[str, Any]:
    step = {"id": id, "uses": "sim.work", "with": {"ms": ms, **more}, "needs": list(needs)}
    return step | ({"compensate": {"uses": "sim.undo", "with": {"ms": 200}}} if undo else {})


def calling(workflow: str, **inputs: Any) -> dict[str, Any]:
    return {"id": "c", "uses": "core.workflow", "with": {"workflow": workflow, **inputs}}


def start(world: SimWorld, execution: str = "x", workflow: str = "sim") -> None:
    world.publish({"type": "workflow_start", "workflow_id": workflow, "execution_id": execution})


def ask(world: SimWorld, kind: str, **body: Any) -> None:
    world.publish({"type": f"workflow_{kind}", "execution_id": "x", **body})


def passing(world: SimWorld, ms: int) -> None:
    world.until(world.now_ms + ms)


@contextmanager
def lagging(ms: int = LAG_MS) -> Iterator[None]:
    """In here, replicas know of nothing that is younger than this."""
    with mock.patch.object(Chaos, "lagging", True), mock.patch.object(Chaos, "lag_ms", ms):
        yield


def state_of(world: SimWorld, execution: str = "x") -> State:
    return check_journal(world, (TENANT, execution)).state


def events_of(world: SimWorld, execution: str = "x") -> list[str]:
    return [event.event.removeprefix("workflow_") for _, event in world.journal(TENANT, execution)]
