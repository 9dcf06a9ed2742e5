"""One simulated world: a server, a few workers that come and go, and time that passes when it is told to."""

from __future__ import annotations

import asyncio
import dataclasses
import heapq
import itertools
import random
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple

import msgspec

from tests.sim.chaos import Chaos, chaotic
from wpa import plan
from wpa.adapters.memory import MemoryServer, open_ports
from wpa.engine.runner import StepRunner
from wpa.engine.services import Services
from wpa.engine.worker import Worker
from wpa.errors import StepFailed
from wpa.hooks.steps import step, step_type_of
from wpa.kernel.program import Program
from wpa.model.codec import decode_event
from wpa.model.events import Event
from wpa.model.limits import Limits
from wpa.ports import Ports
from wpa.ports.definitions import StoredDefinition
from wpa.ports.steps import StepType
from wpa.settings import Settings
from wpa.testing.journal import Failures
from wpa.testing.loop import LoopClock, VirtualLoop

__all__ = ["TENANT", "Began", "SimWorld"]

TENANT = "t"
EPOCH_MS = 1_795_000_000_000
ACK_WAIT_S = 5.0
SETTINGS = Settings.model_validate(
    {"ack_wait_s": ACK_WAIT_S, "grace_s": 1.0, "queues": "far", "concurrency": 8}
)
SKEW_MS = 150
"""So far a worker's clock may be off, one way or the other."""


class Began(NamedTuple):
    """An attempt, as it was begun. ``at_ms`` by the server's clock."""

    worker: str
    execution: str
    key: str
    attempt: int
    at_ms: int
    was_frozen: bool


class Ended(NamedTuple):
    """Work that was done to its end."""

    execution: str
    key: str
    at_ms: int


class SimNode:
    """A worker that can be killed, or frozen."""

    def __init__(self, name: str, world: SimWorld) -> None:
        self.name = name
        self.chaos = Chaos(world.chance, world.server, lags=world.lags)
        self.chaos.calm = world.calm
        self.dead = False
        self._world = world

    async def start(self) -> None:
        world = self._world
        ports = await open_ports(world.server, ack_wait_s=ACK_WAIT_S)
        self._close = ports.close
        skew_ms = world.chance.randint(-SKEW_MS, SKEW_MS) if world.skew_ms is None else world.skew_ms
        skewed = LoopClock(world.loop, EPOCH_MS + skew_ms)
        ports = chaotic(dataclasses.replace(ports, clock=skewed), self.chaos)
        self._runner = StepRunner(Steps(world, self), ports.live, skewed, self.name, threads=1, processes=1)
        services = Services(ports, self._runner, SETTINGS, Limits(), self.name, flows=world.flows)
        self.stop = asyncio.Event()
        self.task = asyncio.create_task(Worker(services).run(self.stop))

    def die(self) -> None:
        """Gone, now: what it still tries reaches nobody."""
        self.dead = True
        with suppress(StopIteration):
            self._close().__await__().__next__()
        self.task.cancel()


async def _work(
    world: SimWorld, node: SimNode, ctx: Any, ms: int = 0, fail: int = 0, fatal: bool = False
) -> Any:
    """What it comes to depends on its inputs and on what is recorded of it."""
    await world.make_attempt(node, ctx, ms)
    if fatal:
        raise StepFailed("it can't be done", type="Fatal", retryable=False)
    if world.failures(ctx.execution, ctx.idempotency_key) < fail:
        raise StepFailed("not this time", type="Flaky")
    world.ended.append(Ended(ctx.execution, ctx.idempotency_key, world.now_ms))
    return {"did": ctx.step}


@step("sim.work")
async def _work_shape(ctx: Any, ms: int = 0, fail: int = 0, fatal: bool = False) -> Any: ...


@step("sim.undo")
async def _undo_shape(ctx: Any, ms: int = 0, fail: int = 0) -> Any: ...


_SHAPES = [found for found in map(step_type_of, (_work_shape, _undo_shape)) if found]


class Steps:
    """A worker's step types: declared once, and bound to each worker."""

    def __init__(self, world: SimWorld, node: SimNode) -> None:
        work = partial(_work, world, node)
        self._types = {shape.name: msgspec.structs.replace(shape, fn=work) for shape in _SHAPES}

    def get(self, name: str) -> StepType | None:
        return self._types.get(name)

    def names(self) -> list[str]:
        return sorted(self._types)


class SimWorld:
    """Everything in it follows from its seed."""

    def __init__(self, seed: int, loop: VirtualLoop, flows: Mapping[str, Program] | None = None) -> None:
        self.chance = random.Random(seed)
        self.loop = loop
        self.flows = flows or {}
        self.clock = LoopClock(loop, EPOCH_MS)
        self.server = MemoryServer(self.clock)
        self.lags = self.chance.random() < 0.3
        self.calm = False
        self.skew_ms: int | None = None
        """So far are all workers' clocks ahead; None: each as chance has it."""
        self.nodes: list[SimNode] = []
        self.began: list[Began] = []
        self.ended: list[Ended] = []
        self.once: set[str] = set()
        """The steps that are run at most once."""
        self.programs: dict[str, Program] = dict(self.flows)
        self.undoable: dict[str, set[str]] = {}
        """Of each plan the steps that have a compensation."""
        self.ports: Ports
        self.failures = Failures(self.server, TENANT).count
        self._names = itertools.count(1)
        self._later: list[tuple[int, int, Callable[[], Awaitable[None]]]] = []
        self._numbers = itertools.count()

    @property
    def now_ms(self) -> int:
        return self.clock.now_ms()

    async def open(self, documents: list[dict[str, Any]], workers: int) -> None:
        self.ports = await open_ports(self.server, ack_wait_s=ACK_WAIT_S)
        for each in documents:
            stored = StoredDefinition(
                workflow=each["id"],
                version=each["version"],
                hash=plan.content_hash(each),
                kind="plan",
                document=msgspec.Raw(msgspec.json.encode(each)),
                deployed_at="",
            )
            await self.ports.definitions.put(TENANT, stored)
            self.programs[each["id"]] = plan.load(each)
            self.undoable[each["id"]] = {found["id"] for found in each["steps"] if "compensate" in found}
        for _ in range(workers):
            await self.add_node()
        await self.loop.idle()

    async def add_node(self) -> None:
        node = SimNode(f"w{next(self._names)}", self)
        self.nodes.append(node)
        await node.start()

    @property
    def alive(self) -> list[SimNode]:
        return [node for node in self.nodes if not node.dead and not node.stop.is_set()]

    def be_calm(self) -> None:
        """The bad day is over."""
        self.calm = True
        for node in self.alive:
            node.chaos.calm = True

    # -- the outside -------------------------------------------------------------------------

    async def publish(self, task: Mapping[str, Any]) -> None:
        await self.ports.tasks.publish(TENANT, msgspec.json.encode(task), {})

    def executions(self) -> list[str]:
        """Those that have begun, by name."""
        return sorted(subject.split(".")[3] for subject in self.server.events.subjects)

    def journal(self, execution: str) -> list[tuple[int, Event]]:
        """The events with the moments at which they were stored, in milliseconds since the Unix epoch."""
        found = self.server.events.read(f"workflow.events.{TENANT}.{execution}")
        return [(message.stored_ms, decode_event(message.data)) for message in found]

    async def make_attempt(self, node: SimNode, ctx: Any, ms: int) -> None:
        """Note an attempt, and let its time pass."""
        was_frozen = node.chaos.frozen_until_s > self.loop.time() - 3 * ACK_WAIT_S
        await node.chaos.thaw()
        self.began.append(
            Began(
                worker=node.name,
                execution=ctx.execution,
                key=ctx.idempotency_key,
                attempt=ctx.attempt,
                at_ms=self.now_ms,
                was_frozen=was_frozen,
            )
        )
        if ms:
            await asyncio.sleep(ms / 1000)
        await node.chaos.thaw()

    # -- time --------------------------------------------------------------------------------

    def at(self, moment_ms: int, action: Callable[[], Awaitable[None]]) -> None:
        heapq.heappush(self._later, (moment_ms, next(self._numbers), action))

    async def until(self, limit_ms: int) -> None:
        """Let time pass; while nobody has a task in hand, straight to what comes next."""
        limit_ns = self.clock.ns_of(limit_ms)
        while True:
            await self.loop.idle()
            if self._later and self._later[0][0] <= self.now_ms:
                await heapq.heappop(self._later)[2]()
                continue
            moment = self._next_ns()
            if moment is None or moment > limit_ns:
                self.loop.advance_to(limit_ns)
                return
            self.loop.advance_to(moment)

    def _next_ns(self) -> int | None:
        moments = [self.clock.ns_of(self._later[0][0])] if self._later else []
        alarm = self.server.schedules.next_ms
        if self.server.tasks.subjects or self.server.due.subjects or (alarm and alarm <= self.now_ms):
            if self.loop.next_ns is not None:
                moments.append(self.loop.next_ns)
        elif alarm is not None:
            moments.append(self.clock.ns_of(alarm))
        return min(moments) if moments else None

    async def close(self) -> None:
        for node in self.nodes:
            if not node.dead:
                node.die()
        me = asyncio.current_task()
        for _ in range(1_000):
            left = [task for task in asyncio.all_tasks() if task is not me]
            if not left:
                return
            for task in left:
                task.cancel()
            await self.loop.idle()
            if self.loop.next_ns is not None:
                self.loop.advance_to(self.loop.next_ns)
