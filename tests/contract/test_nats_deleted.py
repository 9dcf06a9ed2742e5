"""Someone deletes what workers take their tasks from, while they run: they notice, tell, and go on."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from tests.contract.test_nats_leftovers import ack_wait_s, take
from tests.contract.worlds import Hands
from tests.servers import NatsServer
from tests.waiting import until
from wpa.adapters.nats import NatsPorts, open_ports
from wpa.adapters.nats.api import ApiError, api
from wpa.adapters.nats.consumers import consumer_name, stream_of
from wpa.engine.snapshots import Keeper
from wpa.errors import Conflict, Unavailable
from wpa.model.state import State
from wpa.ports.definitions import StoredDefinition
from wpa.ports.tasks import Source

LONG_S = 30.0


@pytest.fixture
async def ports(server: NatsServer) -> AsyncIterator[NatsPorts]:
    ports = await open_ports(server.url, worker="w1", ack_wait_s=LONG_S)
    yield ports
    await ports.aclose()


async def delete(ports: NatsPorts, source: Source) -> None:
    await api(ports.transport, f"CONSUMER.DELETE.{stream_of(source)}.{consumer_name(source)}")


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.parametrize("kind", ["tasks", "steps"])
async def test_a_consumer_that_was_deleted_is_made_anew(
    ports: NatsPorts, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    source = Source("acme") if kind == "tasks" else Source("acme", "steps", "gpu")
    hands = await take(ports, source, 10)
    await ports.transport.publish_acked(source.subject, b"held")
    await until(lambda: hands.leases)
    await delete(ports, source)
    await ports.transport.publish_acked(source.subject, b"after")
    await until(lambda: [lease.data for lease in hands.leases] == [b"held", b"held", b"after"])
    assert hands.leases[0].identity == hands.leases[1].identity
    assert told(caplog) == [
        f"consumer {consumer_name(source)} of stream WPA_TASKS was deleted; it is made anew"
    ]


async def test_alarms_go_on_likewise(ports: NatsPorts, caplog: pytest.LogCaptureFixture) -> None:
    source = Source("acme", "due")
    hands = await take(ports, source, 10)
    await delete(ports, source)
    await ports.timers.set("acme", "x1.wake", 0, b"ring")
    await until(lambda: hands.leases)
    assert told(caplog) == ["consumer due-acme of stream WPA_TIMERS was deleted; it is made anew"]


async def test_one_that_asks_for_nothing_just_then_notices_later(ports: NatsPorts) -> None:
    hands = Hands()
    feed = await ports.tasks.open("acme", hands)
    await delete(ports, Source("acme"))
    await ports.tasks.publish("acme", b"1", {})
    feed.request(1)
    await until(lambda: hands.leases)
    assert [lease.data for lease in hands.leases] == [b"1"]


async def test_the_longest_lease_of_all_workers_is_kept(ports: NatsPorts, server: NatsServer) -> None:
    hasty = await open_ports(server.url, worker="w2", ack_wait_s=0.4)

    async def is_long() -> bool:
        try:
            return await ack_wait_s(ports, "tasks-acme") == LONG_S
        except ApiError:
            return False

    try:
        await take(ports, "acme", 1)
        await take(hasty, "acme", 1)
        await delete(ports, Source("acme"))
        await until(is_long)
    finally:
        await hasty.aclose()


async def test_a_stream_that_was_deleted_is_told_of_and_not_made(
    ports: NatsPorts, server: NatsServer, caplog: pytest.LogCaptureFixture
) -> None:
    hands = await take(ports, "acme", 10)
    await take(ports, "globex", 10)
    await api(ports.transport, "STREAM.DELETE.WPA_TASKS")
    await until(lambda: told(caplog))
    await asyncio.sleep(2.5)
    assert told(caplog) == [
        "no tasks are taken: stream WPA_TASKS is missing; a worker that starts makes it again, empty"
    ]
    newcomer = await open_ports(server.url, worker="w2", ack_wait_s=LONG_S)
    try:
        await newcomer.tasks.publish("acme", b"1", {})
        await until(lambda: hands.leases)
    finally:
        await newcomer.aclose()


@pytest.mark.parametrize("key", ["acme.order", "acme.order.1"])
async def test_a_definition_that_was_deleted_can_be_deployed_again(ports: NatsPorts, key: str) -> None:
    definition = StoredDefinition(
        workflow="order", version="1", hash="h", kind="plan", document=msgspec.Raw(b"{}"), deployed_at=""
    )
    await ports.definitions.put("acme", definition)
    deletion = b"KV-Operation: DEL\r\n"
    await ports.transport.publish_acked(f"$KV.wpa_definitions.{key}", b"", deletion)
    async with asyncio.timeout(20):
        assert await ports.definitions.put("acme", definition) is (key == "acme.order.1")
    assert await ports.definitions.latest("acme", "order") == "1"
    assert await ports.definitions.get("acme", "order", "1") is not None


@pytest.mark.parametrize("how", ["DEL", "PURGE"])
async def test_a_snapshot_or_a_record_that_was_deleted_is_written_anew(ports: NatsPorts, how: str) -> None:
    async def put(data: bytes, revision: int) -> tuple[int, int]:
        return (
            await ports.snapshots.put("acme", "x", data, revision),
            await ports.records.put("acme", "schedule", "w", data, revision),
        )

    old = await put(b"old", 0)
    for key in ("wpa_executions.acme.x", "wpa_records.acme.schedule.w"):
        await ports.transport.publish_acked(f"$KV.{key}", b"", f"KV-Operation: {how}\r\n".encode())
    assert await ports.snapshots.get("acme", "x") is None
    assert await ports.records.get("acme", "schedule", "w") is None
    with pytest.raises(Conflict):
        await ports.snapshots.put("acme", "x", b"late", old[0])
    new = await put(b"new", 0)
    assert await ports.snapshots.get("acme", "x") == (b"new", new[0])
    assert await ports.records.get("acme", "schedule", "w") == (b"new", new[1])
    with pytest.raises(Conflict):
        await ports.records.put("acme", "schedule", "w", b"late", 0)


async def test_an_execution_whose_snapshot_was_deleted_comes_to_rest(ports: NatsPorts) -> None:
    services: Any = SimpleNamespace(ports=ports, clock=ports.clock)
    state = State(
        tenant="acme", execution="x", workflow="w", version="1", definition_hash="", start_hash="", seq=3
    )
    await Keeper(services).rest(state)
    await ports.transport.publish_acked("$KV.wpa_executions.acme.x", b"", b"KV-Operation: DEL\r\n")
    async with asyncio.timeout(10):
        await Keeper(services).rest(state)
    assert await ports.snapshots.get("acme", "x") is not None


async def test_a_bucket_that_is_gone_is_not_taken_for_an_empty_one(
    ports: NatsPorts, server: NatsServer
) -> None:
    await ports.records.put("acme", "schedule", "w", b"1", 0)
    for stream in (
        "KV_wpa_definitions",
        "KV_wpa_records",
        "OBJ_wpa_payloads",
        "KV_wpa_executions",
        "WPA_DLQ",
    ):
        await api(ports.transport, f"STREAM.DELETE.{stream}")
    for call in (
        ports.definitions.latest("acme", "w"),
        ports.definitions.get("acme", "w", "1"),
        ports.records.get("acme", "schedule", "w"),
        ports.blobs.get("acme/x/0"),
        ports.tasks.exhume("acme", 1),
    ):
        with pytest.raises(Unavailable, match="is missing"):
            await call
    assert await ports.snapshots.get("acme", "x") is None, "the journal is the truth"
