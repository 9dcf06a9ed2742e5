"""Someone deletes what workers take their tasks from, while they run: they notice, tell, and go on."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator

import msgspec
import pytest

from tests.contract.test_nats_leftovers import ack_wait_s, take
from tests.contract.worlds import Hands
from tests.servers import NatsServer
from tests.waiting import until
from wpa.adapters.nats import NatsPorts, open_ports
from wpa.adapters.nats.api import ApiError, api
from wpa.adapters.nats.consumers import consumer_name, stream_of
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
