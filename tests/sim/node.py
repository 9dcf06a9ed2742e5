"""A simulated worker: the real one, on ports that fail, with a clock that is wrong."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import msgspec

from tests.sim.chaos import Chaos, chaotic
from tests.sim.loop import SimClock
from wpa.adapters.memory import open_ports
from wpa.engine.deployments import Deployments
from wpa.engine.library import Library
from wpa.engine.runner import StepRunner
from wpa.engine.services import Services
from wpa.engine.worker import Worker
from wpa.errors import StepFailed
from wpa.hooks.steps import step, step_type_of
from wpa.kernel.program import Program
from wpa.model.limits import Limits
from wpa.ports import Ports
from wpa.ports.steps import StepType
from wpa.settings import Settings

if TYPE_CHECKING:
    from tests.sim.world import SimWorld

__all__ = ["ACK_WAIT_S", "EPOCH_MS", "SKEW_MS", "SimNode", "mark_of"]

EPOCH_MS: Final = 1_795_000_000_000
ACK_WAIT_S: Final = 2.5
SETTINGS: Final = {
    queues: Settings.model_validate(
        {"ack_wait_s": ACK_WAIT_S, "grace_s": 1.0, "queues": queues, "concurrency": 8}
    )
    for queues in ("", "far")
}
"""By the queues that a worker serves."""
LIMITS: Final = Limits()
SKEW_MS: Final = 150
"""So far a worker's clock may be off, one way or the other, when nobody sets it."""


def mark_of(tenant: str) -> str:
    """What a tenant's inputs hold, and nobody else's."""
    return f"canary-of-{tenant}"


class _Services(Services):
    """The same dice for the same execution, and no work that takes the time of the machine."""

    def new_seed(self, execution: str) -> str:
        return hashlib.blake2b(execution.encode(), digest_size=16).hexdigest()

    def worked_s(self) -> float:
        return 0.0


class _Library(Library):
    """Asks the store for a definition as ever, and finds it compiled: once for all workers and runs."""

    def __init__(self, world: SimWorld, ports: Ports, flows: Mapping[str, Program]) -> None:
        super().__init__(ports.definitions, ports.clock, flows)
        self._compiled = world.programs

    async def _load(self, tenant: str, workflow: str, version: str) -> Program | None:
        if await self._definitions.get(tenant, workflow, version) is None:
            return None
        program = self._programs[tenant, workflow, version] = self._compiled[tenant, workflow, version]
        return program


class _FollowingNothing(Deployments):
    """What a worker does about plans that start by themselves, where there is none.

    To look at every definition, and at the records of what it might start, is a third of a worker's calls.
    """

    async def run(self) -> None:
        """Nothing."""


class _Worker(Worker):
    def __init__(self, services: Services, *, follows: bool) -> None:
        super().__init__(services)
        if not follows:
            self._deployments = _FollowingNothing(services, [])


class SimNode:
    """A worker that can be killed, frozen, or told another time.

    Args:
        name: the worker's.
        world: where it works.
        flows: those that are installed in it; None: the world's.
    """

    def __init__(self, name: str, world: SimWorld, flows: Mapping[str, Program] | None = None) -> None:
        self.name = name
        self.dead = False
        self.stale = flows is not None
        self._world = world
        chance, loop = world.chance, world.loop
        self._skew_ms = chance.randint(-SKEW_MS, SKEW_MS) if world.skew_ms is None else world.skew_ms
        self.clock = SimClock(loop, EPOCH_MS + self._skew_ms)
        self.chaos = Chaos(chance, loop, world.server, world.weather, self._fall, world.faults)
        ports = loop.run(open_ports(world.server, ack_wait_s=ACK_WAIT_S))
        self._close = ports.close
        ports = chaotic(ports, self.chaos, self.clock)
        runner = StepRunner(_Steps(world, self), ports.live, self.clock, name, threads=1, processes=1)
        settings = SETTINGS["far" if world.has_queue else ""]
        services = _Services(ports, runner, settings, LIMITS, name, flows=flows or world.flows)
        services.library = _Library(world, ports, flows or world.flows)
        self.stop = asyncio.Event()
        self.task = loop.create_task(_Worker(services, follows=world.follows).run(self.stop))

    def die(self) -> None:
        """Gone, now: what it still tries reaches nobody."""
        self.dead = self.chaos.dead = True
        with suppress(StopIteration):
            self._close().__await__().__next__()
        self.task.cancel()

    def _fall(self) -> None:
        """Die at a call; somebody may see to another one."""
        if not self.dead:
            self.die()
            self._world.on_death()

    def jump(self, ms: int) -> None:
        """Somebody sets its clock."""
        self.clock.epoch_ms += ms
        self._world.faults["a clock set"] += 1
        self._world.skew_most_ms = max(self._world.skew_most_ms, abs(self.clock.epoch_ms - EPOCH_MS))

    def be_calm(self) -> None:
        """Its bad day is over, and its clock is right again."""
        self.chaos.calm()
        self.clock.epoch_ms = EPOCH_MS + self._skew_ms


async def _work(
    world: SimWorld,
    node: SimNode,
    ctx: Any,
    ms: int = 0,
    fail: int = 0,
    fatal: bool = False,
    mark: str = "",
) -> Any:
    """What it comes to depends on its inputs and on what is recorded of it."""
    assert mark in ("", mark_of(ctx.tenant)), f"{ctx.tenant}.{ctx.execution} got {mark}"
    await world.make_attempt(node, ctx, ms)
    if fatal:
        raise StepFailed("it can't be done", type="Fatal", retryable=False)
    if fail and world.failures(ctx.tenant, ctx.execution, ctx.idempotency_key) < fail:
        raise StepFailed("not this time", type="Flaky")
    return {"did": ctx.step, "mark": mark}


@step("sim.work")
async def _work_shape(ctx: Any, ms: int = 0, fail: int = 0, fatal: bool = False, mark: str = "") -> Any: ...


@step("sim.undo")
async def _undo_shape(ctx: Any, ms: int = 0, fail: int = 0, mark: str = "") -> Any: ...


_SHAPES = [found for found in map(step_type_of, (_work_shape, _undo_shape)) if found]


class _Steps:
    """A worker's step types: declared once, and bound to each worker."""

    def __init__(self, world: SimWorld, node: SimNode) -> None:
        work = partial(_work, world, node)
        self._types = {shape.name: msgspec.structs.replace(shape, fn=work) for shape in _SHAPES}

    def get(self, name: str) -> StepType | None:
        return self._types.get(name)

    def names(self) -> list[str]:
        return sorted(self._types)
