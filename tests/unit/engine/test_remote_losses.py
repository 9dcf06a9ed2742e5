"""A step of a queue that ends each worker that begins it is given up, as one that is run by its driver; one that
was only in hand is not.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, NamedTuple, cast

import msgspec
import pytest

from wpa.adapters.memory import MemoryServer, open_ports
from wpa.engine.remote import RemoteSteps
from wpa.engine.runner import StepCall, StepResult
from wpa.engine.services import Services
from wpa.errors import Unavailable
from wpa.model.limits import Limits
from wpa.model.tasks import StepResultPayload, StepResultTask, StepTask
from wpa.ports.tasks import Feed, Lease, Source
from wpa.settings import Settings

SOURCE = Source("acme", "steps", "gpu")
LIMITS = Limits()
STEP = StepTask(
    tenant_id="acme",
    workflow_id="w",
    execution_id="x",
    step="a",
    slot="a",
    uses="gpu.render",
    attempt=1,
    idempotency_key="x:a",
)


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


class Brief(Deadly):
    """Ends a step at once."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[StepCall] = []

    async def run(self, call: StepCall) -> StepResult:
        self.calls.append(call)
        return StepResult(output="done", raw=b'"done"')


class Served(NamedTuple):
    runner: Brief
    services: Services
    server: MemoryServer

    async def result(self) -> StepResultPayload:
        """What is reported, in the end."""
        async with asyncio.timeout(10):
            while not (found := self.server.tasks.read("workflow.tasks.acme")):
                await asyncio.sleep(0.005)
        return msgspec.json.decode(found[0].data, type=StepResultTask).payload


@pytest.fixture
async def served(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Served]:
    """A worker that serves the queue, and tries at once again what it has handed back."""
    monkeypatch.setattr("wpa.engine.remote.HAND_BACK_S", 0.0)
    monkeypatch.setattr("wpa.engine.patience.RETRY_S", 0.0)
    server, runner = MemoryServer(), Brief()
    ports = await open_ports(server)
    services = Services(ports, cast("Any", runner), Settings(), LIMITS, "w")
    remote = RemoteSteps(services)
    feed = await ports.tasks.open(SOURCE, remote.take)
    remote.serve(SOURCE, feed)
    yield Served(runner, services, server)
    remote.close()
    await ports.aclose()


@pytest.mark.parametrize("once", [False, True])
async def test_one_whose_inputs_cannot_be_read_yet_has_not_begun(
    served: Served, monkeypatch: pytest.MonkeyPatch, once: bool
) -> None:
    ports, tries = served.services.ports, LIMITS.lost_attempts_max + 5
    key = "acme/x/0123"
    await ports.blobs.put(key, b'{"size": 7}')
    get = ports.blobs.get

    async def refuse(key: str) -> bytes:
        nonlocal tries
        if tries:
            tries -= 1
            raise Unavailable("there is no leader")
        return await get(key)

    monkeypatch.setattr(ports.blobs, "get", refuse)
    inputs = {"$blob": {"key": key, "size": 11, "sha256": ""}}
    step = msgspec.structs.replace(STEP, inputs=inputs, at_most_once=once)
    await ports.tasks.publish_step("acme", "gpu", msgspec.json.encode(step), {})
    result = await served.result()
    assert (result.output, result.error) == ("done", None)
    assert [call.inputs for call in served.runner.calls] == [{"size": 7}]
    assert not tries


async def test_a_claim_that_cannot_be_read_back_yet_is_ours_still(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    records, tries = served.services.ports.records, 3
    put, get = records.put, records.get

    async def put_unheard(*what: Any) -> int:
        await put(*what)
        raise Unavailable("the connection was lost: the outcome is unknown")

    async def refuse(*which: Any) -> Any:
        nonlocal tries
        if tries:
            tries -= 1
            raise Unavailable("there is no leader")
        return await get(*which)

    monkeypatch.setattr(records, "put", put_unheard)
    monkeypatch.setattr(records, "get", refuse)
    step = msgspec.structs.replace(STEP, at_most_once=True)
    await served.services.ports.tasks.publish_step("acme", "gpu", msgspec.json.encode(step), {})
    result = await served.result()
    assert (result.output, result.error) == ("done", None)


async def test_after_so_many_workers_it_is_reported_as_lost() -> None:
    server = MemoryServer()
    ports = await open_ports(server, ack_wait_s=0.05)
    await ports.tasks.publish_step("acme", "gpu", msgspec.json.encode(STEP), {})
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
