"""Appends that go in groups, on a real server that syncs each write: each gets its own answer, come what may."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator

import pytest

from tests.contract.test_journal import event, fill
from tests.contract.test_nats_faults import again
from tests.contract.worlds import NatsWorld
from tests.servers import NatsServer
from wpa.adapters import nats as adapter
from wpa.adapters.nats import NatsPorts, open_ports, streams
from wpa.adapters.nats.api import api
from wpa.adapters.nats.group_commit import BATCH_MIN
from wpa.adapters.nats.pages import read_page
from wpa.errors import Conflict, Unavailable
from wpa.ports import Ports

MANY = 120


class GroupingWorld(NatsWorld):
    """Its workers let their appends go in groups."""

    async def _connect(self, ack_wait_s: float) -> Ports:
        return await open_ports(self._url, worker="contract", ack_wait_s=ack_wait_s, group_appends=True)


@pytest.fixture
def syncing(server: NatsServer) -> NatsServer:
    server.stop()
    server.jetstream["sync_interval"] = "always"
    server.start()
    return server


@pytest.fixture
async def world(syncing: NatsServer) -> AsyncIterator[NatsWorld]:
    world = GroupingWorld(syncing.url)
    yield world
    await world.close()


async def batches(ports: Ports, tenant: str) -> Counter[str]:
    """How many of the tenant's events came in each batch; under "", those that came alone."""
    assert isinstance(ports, NatsPorts)
    found = await read_page(ports.transport, streams.EVENTS, f"workflow.events.{tenant}.*", 1)
    return Counter(message.headers.get("Nats-Batch-Id", "") for message in found.messages)


async def append_all(ports: Ports, tenant: str, executions: list[str]) -> list[int | BaseException]:
    """The first event of each, all at once."""
    appends = (ports.journal.append(event(tenant, 1, execution), 0) for execution in executions)
    return await asyncio.gather(*appends, return_exceptions=True)


async def test_each_append_of_a_group_learns_where_it_was_stored(world: NatsWorld, tenant: str) -> None:
    workers = [await world.connect() for _ in range(3)]
    executions = [[f"x{number}-{n}" for n in range(MANY)] for number in range(3)]
    outcomes = await asyncio.gather(
        *(append_all(ports, tenant, own) for ports, own in zip(workers, executions, strict=True))
    )
    for own, positions in zip(executions, outcomes, strict=True):
        for execution, position in zip(own, positions, strict=True):
            [(place, found)] = await workers[0].journal.read(tenant, execution)
            assert (place, found.execution_id) == (position, execution)
    found = await batches(workers[0], tenant)
    assert found.total() == 3 * MANY
    assert max(count for batch, count in found.items() if batch) > MANY / 2


async def test_one_at_a_time_there_are_no_batches(world: NatsWorld, tenant: str) -> None:
    ports = await world.connect()
    await fill(ports, tenant, BATCH_MIN + 2)
    assert await batches(ports, tenant) == {"": BATCH_MIN + 2}


async def test_a_lost_compare_and_set_takes_no_other_with_it(world: NatsWorld, tenant: str) -> None:
    ports = await world.connect()
    executions = [f"x{n}" for n in range(MANY)]
    taken = executions[5:100:31]
    for execution in taken:
        await fill(ports, tenant, 1, execution)
    outcomes = dict(zip(executions, await append_all(ports, tenant, executions), strict=True))
    assert [execution for execution, one in outcomes.items() if isinstance(one, Conflict)] == taken
    for execution, position in outcomes.items():
        [(place, _)] = await ports.journal.read(tenant, execution)
        assert execution in taken or place == position


async def test_listeners_hear_each_event_of_a_group_once(world: NatsWorld, tenant: str) -> None:
    ports = await world.connect()
    heard = await world.listen(f"workflow.events.{tenant}.>")
    executions = [f"x{n}" for n in range(MANY)]
    await append_all(ports, tenant, executions)
    await world.until(lambda: len(heard) >= MANY)
    await world.pass_time(0.1)
    assert [one.subject for one in heard] == [f"workflow.events.{tenant}.{name}" for name in executions]


async def test_groups_in_flight_at_a_crash_all_end_and_leave_no_gap(
    world: NatsWorld, syncing: NatsServer, tenant: str
) -> None:
    ports = await world.connect()
    acknowledged: Counter[str] = Counter()

    async def write(execution: str) -> None:
        position = 0
        while True:
            try:
                seq = acknowledged[execution] + 1
                position = await ports.journal.append(event(tenant, seq, execution), position)
            except Unavailable:
                return
            acknowledged[execution] += 1

    writers = [asyncio.create_task(write(f"x{n}")) for n in range(60)]
    await world.until(lambda: acknowledged.total() > 300)
    await asyncio.to_thread(syncing.kill)
    async with asyncio.timeout(15):
        await asyncio.gather(*writers)
    await asyncio.to_thread(syncing.start)
    await again(ports, tenant)
    for n in range(60):
        seqs = [found.seq for _, found in await ports.journal.read(tenant, f"x{n}")]
        assert seqs == list(range(1, len(seqs) + 1))
        assert len(seqs) - acknowledged[f"x{n}"] in (0, 1)
    after = await append_all(ports, f"{tenant}-b", [f"x{n}" for n in range(MANY)])
    assert all(isinstance(position, int) for position in after)


async def test_a_stream_from_before_is_changed_as_little_as_can_be(syncing: NatsServer) -> None:
    configs = []
    for grouping in (False, True, True, False):
        ports = await open_ports(syncing.url, worker="w", group_appends=grouping)
        config = (await api(ports.transport, f"STREAM.INFO.{streams.EVENTS}"))["config"]
        del config["metadata"]  # the server's own notes on who may read it
        configs.append(config)
        await ports.aclose()
    assert not configs[0].get("allow_atomic")
    assert {**configs[0], "allow_atomic": True} == configs[1] == configs[2] == configs[3]


@pytest.mark.parametrize("why", ["replicas", "old"])
async def test_where_it_is_of_no_use_it_is_left_aside(
    syncing: NatsServer,
    tenant: str,
    why: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def three(transport: object) -> int:
        return 3

    if why == "replicas":
        monkeypatch.setattr(adapter, "_replicas", three)
    else:
        monkeypatch.setattr(adapter, "SYNCS_BATCHES", (99, 0))
    with caplog.at_level("INFO", logger="wpa.nats"):
        ports = await open_ports(syncing.url, worker="w", group_appends=True)
    assert "WPA_GROUP_APPENDS is left aside" in caplog.text
    await append_all(ports, tenant, [f"x{n}" for n in range(MANY)])
    assert await batches(ports, tenant) == {"": MANY}
    config = (await api(ports.transport, f"STREAM.INFO.{streams.EVENTS}"))["config"]
    assert not config.get("allow_atomic")
    await ports.aclose()
