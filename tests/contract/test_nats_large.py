"""Backlogs of large messages: a server ends the connection of whom it has to send too much at a time."""

from __future__ import annotations

import pytest

from tests.contract.worlds import Hands, NatsWorld
from tests.servers import NatsServer
from tests.waiting import until
from wpa.adapters.nats import NatsPorts, pull

LARGE = 3_900_000


async def connect(server: NatsServer) -> NatsPorts:
    ports = await NatsWorld(server.url).connect(60.0)
    assert isinstance(ports, NatsPorts)
    return ports


async def test_many_large_tasks_come_over_one_connection(server: NatsServer) -> None:
    ports, hands, lost = await connect(server), Hands(), []
    for number in range(60):
        await ports.tasks.publish("acme", b"%02d" % number + b"x" * LARGE, {})
    ports.transport.on_reconnect(lambda: lost.append("the connection"))
    feed = await ports.tasks.open("acme", hands)
    feed.request(500)
    await until(lambda: len(hands.leases) == 60)
    assert [int(data[:2]) for data in hands.data] == [*range(60)]
    assert not lost
    assert {lease.delivered for lease in hands.leases} == {1}
    await ports.tasks.publish("acme", b"small", {})
    await until(lambda: hands.data[-1] == b"small", within_s=2.0)
    await ports.close()


async def test_a_task_that_is_larger_than_what_is_asked_for_comes_by_itself(
    server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Limits change; what is stored already is handed out all the same."""
    monkeypatch.setattr(pull, "PULL_BYTES", 1_000_000)
    ports, hands = await connect(server), Hands()
    sizes = [10, LARGE, 10, LARGE, LARGE, 10, 900_000, 900_000]
    for size in sizes:
        await ports.tasks.publish("acme", b"x" * size, {})
    feed = await ports.tasks.open("acme", hands)
    feed.request(3)
    feed.request(500)
    await until(lambda: len(hands.leases) == len(sizes), within_s=5.0)
    assert [len(data) for data in hands.data] == sizes
    assert {lease.delivered for lease in hands.leases} == {1}
    await ports.close()
