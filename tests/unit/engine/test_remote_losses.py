"""A step of a queue that ends each worker that begins it is given up, as one that is run by its driver."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from wpa.adapters.memory import MemoryServer, open_ports
from wpa.engine.remote import RemoteSteps
from wpa.engine.runner import StepCall, StepResult
from wpa.engine.services import Services
from wpa.model.limits import Limits
from wpa.model.tasks import StepResultTask, StepTask
from wpa.ports.tasks import Feed, Lease, Source
from wpa.settings import Settings

SOURCE = Source("acme", "steps", "gpu")
LIMITS = Limits()


class Deadly:
    """Begins a step, and never comes to its end."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()

    def has(self, name: str) -> bool:
        return True

    async def run(self, call: StepCall) -> StepResult:
        self.begun.set()
        await asyncio.get_running_loop().create_future()
        raise AssertionError


async def hand_out(server: MemoryServer, lives: bool = False) -> tuple[bool, int]:
    """To another worker, which ends as soon as it begins the step: whether it does, at which delivery."""
    ports = await open_ports(server, ack_wait_s=0.05)
    deadly: Any = Deadly()
    remote = RemoteSteps(Services(ports, deadly, Settings(), LIMITS, "w"))
    taken: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def take(lease: Lease) -> None:
        if not taken.done():
            taken.set_result(lease.delivered)
            remote.take(lease)

    feed: Feed = await ports.tasks.open(SOURCE, take)
    remote._feeds[SOURCE] = feed
    feed.request(1)
    delivered = await asyncio.wait_for(taken, 10)
    begins = asyncio.create_task(deadly.begun.wait())
    await asyncio.wait({begins, *remote.running}, timeout=10, return_when=asyncio.FIRST_COMPLETED)
    await ports.aclose()  # nothing that it does from now on reaches anybody
    for task in [begins, *remote.running]:
        task.cancel()
    return deadly.begun.is_set(), delivered


async def test_after_so_many_workers_it_is_reported_as_lost() -> None:
    server = MemoryServer()
    ports = await open_ports(server, ack_wait_s=0.05)
    step = StepTask(
        tenant_id="acme",
        workflow_id="w",
        execution_id="x",
        step="a",
        slot="a",
        uses="gpu.render",
        attempt=1,
        idempotency_key="x:a",
    )
    await ports.tasks.publish_step("acme", "gpu", msgspec.json.encode(step), {})
    begun = 0
    while (await hand_out(server))[0]:
        begun += 1
        assert begun <= LIMITS.lost_attempts_max + 1
    assert begun == LIMITS.lost_attempts_max + 1
    (result,) = server.tasks.read("workflow.tasks.acme")
    error = msgspec.json.decode(result.data, type=StepResultTask).payload.error
    assert error is not None
    assert (error.type, error.retryable) == ("WorkerLost", False)
    assert not server.tasks.read(SOURCE.subject), "it is acked"
