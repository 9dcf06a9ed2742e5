"""A takeover from what was read a moment too early, or of a replica that lags behind: the driver before has
gone on since, and said so."""

from __future__ import annotations

import asyncio
import copy
import dataclasses
from typing import Any

import msgspec
import pytest

from tests.unit.engine.test_lagging_replicas import Lagging, NoSnapshots
from tests.unit.engine.test_takeover import ACK_WAIT_S, Node
from wpa import plan
from wpa.adapters.memory import MemoryServer, open_ports
from wpa.hooks.steps import step
from wpa.model.events import Event
from wpa.model.times import rfc3339
from wpa.ports import Ports
from wpa.ports.definitions import StoredDefinition

DOCUMENT = {
    "id": "w",
    "version": "1",
    "steps": [
        {"id": "a", "uses": "t.hold"},
        {"id": "long", "uses": "t.hold"},
        {"id": "b", "uses": "t.hold", "needs": ["a"]},
    ],
}


class Behind:
    """One execution, with a driver that is gone, and an heir that has read less than there was."""

    def __init__(self, server: MemoryServer, ports: Ports) -> None:
        self.server, self.ports = server, ports
        self.open: set[str] = set()
        """The steps that may end."""

    async def node(self, name: str, knows: int | None = None) -> Node:
        @step("t.hold")
        async def hold(ctx: Any) -> None:
            while ctx.step not in self.open:
                await asyncio.sleep(0.01)

        ports = await open_ports(self.server, ack_wait_s=ACK_WAIT_S)
        if knows is not None:
            journal: Any = Lagging(ports.journal, knows)
            snapshots: Any = copy.copy(ports.snapshots)
            snapshots.get = NoSnapshots().get
            ports = dataclasses.replace(ports, journal=journal, snapshots=snapshots, lags=lambda: True)
        return Node(name, ports, hold, heartbeat=True)

    async def ask(self, kind: str, **more: Any) -> None:
        asked = {"type": f"workflow_{kind}", "execution_id": "x1", **more}
        await self.ports.tasks.publish("t", msgspec.json.encode(asked), {})

    async def deploy(self) -> None:
        stored = StoredDefinition(
            workflow="w", version="1", hash=plan.content_hash(DOCUMENT), kind="plan",
            document=msgspec.Raw(msgspec.json.encode(DOCUMENT)), deployed_at="",
        )  # fmt: skip
        await self.ports.definitions.put("t", stored)

    async def comes(self, name: str, count: int = 1) -> list[tuple[int, Event]]:
        """The journal once it has so many events of a name."""
        async with asyncio.timeout(20):
            while True:
                stored = await self.ports.journal.read("t", "x1")
                if sum(event.event == f"workflow_{name}" for _, event in stored) == count:
                    return stored
                await asyncio.sleep(0.01)


async def leave(node: Node) -> None:
    """What is left of a worker that is gone: nothing is recorded, and what it held is handed out again."""
    node.task.cancel()
    await asyncio.gather(node.task, return_exceptions=True)


async def paused_and_resumed(world: Behind) -> list[tuple[int, Event]]:
    """The driver goes on after a pause, and opens ``b``."""
    await world.ask("start", workflow_id="w")
    await world.comes("started")
    await world.ask("pause")
    await world.comes("paused")
    world.open.add("a")
    await world.comes("step_completed")
    await world.ask("resume")
    return await world.comes("resumed", count=2)


async def begun_in_time(world: Behind) -> list[tuple[int, Event]]:
    """The driver begins at the moment for which the start was."""
    at = rfc3339(world.ports.clock.now_ms() + 300)
    await world.ask("start", workflow_id="w", start_at=at)
    return await world.comes("resumed")


@pytest.mark.parametrize("goes_on", [paused_and_resumed, begun_in_time])
async def test_what_the_driver_before_has_opened_is_run(goes_on: Any) -> None:
    server = MemoryServer()
    world = Behind(server, await open_ports(server, ack_wait_s=ACK_WAIT_S))
    first = await world.node("first")
    await world.deploy()
    stored = await goes_on(world)
    assert stored[-1][1].worker == "first" and "next" in stored[-1][1].data
    before = stored[-2][0]
    await leave(first)
    heir = await world.node("heir", knows=before)
    try:
        world.open |= {"a", "long", "b"}
        journal = await world.comes("completed")
    finally:
        heir.stop.set()
        await heir.task
    steps = [event.data["slot"] for _, event in journal if event.event == "workflow_step_completed"]
    assert sorted(steps) == ["a", "b", "long"]
    assert [event.event for _, event in journal].count("workflow_recovered") == 1
