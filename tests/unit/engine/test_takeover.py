"""Two workers on one set of in-memory ports: leases that run out, zombies, takeovers."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from wpa import plan
from wpa.adapters.memory import MemoryServer, open_ports
from wpa.engine.runner import StepRunner
from wpa.engine.services import Services
from wpa.engine.worker import Worker
from wpa.hooks import core
from wpa.hooks.steps import step, step_type_of
from wpa.model.limits import Limits
from wpa.ports import Ports
from wpa.ports.definitions import StoredDefinition
from wpa.ports.steps import StepType
from wpa.settings import Settings

ACK_WAIT_S = 0.4
DOCUMENT = {
    "id": "w",
    "version": "1",
    "steps": [
        {"id": "a", "uses": "t.hold"},
        {"id": "b", "uses": "core.echo", "needs": ["a"], "with": {"x": 1}},
    ],
}


class Catalog:
    def __init__(self, *functions: Any) -> None:
        self.types = {found.name: found for found in map(step_type_of, functions) if found}

    def get(self, name: str) -> StepType | None:
        return self.types.get(name)

    def names(self) -> list[str]:
        return sorted(self.types)


class Node:
    """A worker whose heartbeat can be stopped, as a paused process's would be."""

    def __init__(self, name: str, ports: Ports, hold: Any, *, heartbeat: bool) -> None:
        self.ports = ports
        runner = StepRunner(
            Catalog(hold, *core.wpa_steps()), ports.live, ports.clock, name, threads=1, processes=1
        )
        # The heartbeat comes some times in an ack-wait: a long one here never beats within the test.
        settings = Settings(ack_wait_s=ACK_WAIT_S if heartbeat else 600, grace_s=1)
        self.services = Services(ports, runner, settings, Limits(), name)
        self.stop = asyncio.Event()
        self.task = asyncio.create_task(Worker(self.services).run(self.stop))

    async def end(self) -> None:
        self.stop.set()
        await self.task
        await self.services.runner.aclose()
        await self.ports.aclose()


class World:
    def __init__(self) -> None:
        self.server = MemoryServer()
        self.nodes: list[Node] = []
        self.gates: dict[str, asyncio.Event] = {}
        self.runs: list[tuple[str, str]] = []
        self.cancelled: list[str] = []

    async def node(self, name: str, *, heartbeat: bool) -> Node:
        gate = self.gates[name] = asyncio.Event()

        @step("t.hold")
        async def hold(ctx: Any) -> str:
            self.runs.append((name, ctx.idempotency_key))
            try:
                await gate.wait()
            except asyncio.CancelledError:
                self.cancelled.append(name)
                raise
            return name

        ports = await open_ports(self.server, ack_wait_s=ACK_WAIT_S)
        node = Node(name, ports, hold, heartbeat=heartbeat)
        self.nodes.append(node)
        return node

    async def deploy_and_start(self, ports: Ports) -> None:
        stored = StoredDefinition(
            workflow="w", version="1", hash=plan.content_hash(DOCUMENT), kind="plan",
            document=msgspec.Raw(msgspec.json.encode(DOCUMENT)), deployed_at="",
        )  # fmt: skip
        await ports.definitions.put("t", stored)
        task = {"type": "workflow_start", "workflow_id": "w", "execution_id": "x1"}
        await ports.tasks.publish("t", msgspec.json.encode(task), {})

    async def until(self, what: Any, within_s: float = 8.0) -> None:
        async with asyncio.timeout(within_s):
            while not what():
                await asyncio.sleep(0.01)

    async def events(self) -> list[Any]:
        return [event for _, event in await self.nodes[0].ports.journal.read("t", "x1")]


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = World()
    yield world
    for node in world.nodes:
        with contextlib.suppress(Exception):
            await node.end()


async def test_a_heartbeat_keeps_the_lease_as_long_as_the_step_runs(world: World) -> None:
    first = await world.node("first", heartbeat=True)
    await world.deploy_and_start(first.ports)
    await world.until(lambda: world.runs)
    await world.node("second", heartbeat=True)
    await asyncio.sleep(ACK_WAIT_S * 3)
    world.gates["first"].set()
    await asyncio.sleep(0.2)
    events = await world.events()
    assert [event.event for event in events][-1] == "workflow_completed"
    assert {event.epoch for event in events} == {1}
    assert len(world.runs) == 1


async def test_a_zombie_is_superseded_nudged_and_neither_acks_nor_appends(world: World) -> None:
    zombie = await world.node("zombie", heartbeat=False)
    await world.deploy_and_start(zombie.ports)
    await world.until(lambda: world.runs)
    await world.node("heir", heartbeat=True)
    await world.until(lambda: len(world.runs) == 2)
    # The takeover's nudge reaches the zombie: the step it still runs is cancelled at once.
    await world.until(lambda: world.cancelled == ["zombie"])
    world.gates["zombie"].set()
    world.gates["heir"].set()
    await asyncio.sleep(0.3)
    events = await world.events()
    assert [event.event.removeprefix("workflow_") for event in events] == [
        "started",
        "recovered",
        "step_completed",
        "step_completed",
        "completed",
    ]
    assert [(event.worker, event.epoch) for event in events] == [("zombie", 1)] + [("heir", 2)] * 4
    assert events[2].data["output"] == "heir"
    assert {key for _, key in world.runs} == {"x1:a:1"}
    assert await zombie.ports.tasks.tenants() == set()


async def test_a_zombie_that_is_not_nudged_stops_at_its_next_append(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    zombie = await world.node("zombie", heartbeat=False)
    await world.deploy_and_start(zombie.ports)
    await world.until(lambda: world.runs)
    heir = await world.node("heir", heartbeat=True)
    monkeypatch.setattr(heir.ports.live, "nudge", lambda *args: None)
    await world.until(lambda: len(world.runs) == 2)
    world.gates["zombie"].set()
    await asyncio.sleep(0.3)
    assert [event.event for event in await world.events()] == ["workflow_started", "workflow_recovered"]
    assert await heir.ports.tasks.tenants() == {"t"}, (
        "the zombie has acked the task, which is the heir's lease"
    )
    world.gates["heir"].set()
    await asyncio.sleep(0.3)
    assert (await world.events())[-1].event == "workflow_completed"


async def test_a_stopping_worker_hands_back_what_it_cannot_finish(world: World) -> None:
    first = await world.node("first", heartbeat=True)
    await world.deploy_and_start(first.ports)
    await world.until(lambda: world.runs)
    first.stop.set()
    await first.task
    assert world.cancelled == ["first"]
    await world.node("second", heartbeat=True)
    await world.until(lambda: len(world.runs) == 2)
    world.gates["second"].set()
    await asyncio.sleep(0.3)
    assert (await world.events())[-1].event == "workflow_completed"


async def test_a_cancel_does_not_wait_for_a_step_that_ignores_it(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("wpa.engine.attempts.STOP_WITHIN_S", 0.2)
    gate, seen = asyncio.Event(), []

    @step("t.hold")
    async def hold(ctx: Any) -> None:
        seen.append(("begin", ctx.attempt, ctx.cancelled))
        while not gate.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await gate.wait()
                break
            seen.append(("ignores", ctx.attempt, ctx.cancelled))

    world = World()
    node = Node("first", await open_ports(world.server, ack_wait_s=ACK_WAIT_S), hold, heartbeat=True)
    world.nodes.append(node)
    try:
        await world.deploy_and_start(node.ports)
        await world.until(lambda: seen)
        asked = {"type": "workflow_cancel", "execution_id": "x1", "metadata": {"user_id": "ann"}}
        await node.ports.tasks.publish("t", msgspec.json.encode(asked), {})
        async with asyncio.timeout(5):
            while (events := await world.events())[-1].event != "workflow_cancelled":
                await asyncio.sleep(0.02)
        gate.set()
        await asyncio.sleep(ACK_WAIT_S * 2)
        assert [event.id for event in await world.events()] == [event.id for event in events]
        assert seen == [("begin", 1, False), ("ignores", 1, True)]  # never a second attempt
        assert events[-1].epoch == 2
        warnings = [line for line in caplog.messages if "ignores its cancellation" in line]
        assert len(warnings) == 1 and warnings[0].startswith("t.x1: step a (t.hold), attempt 1,")
    finally:
        await node.end()
