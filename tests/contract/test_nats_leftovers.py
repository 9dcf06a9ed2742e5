"""What a dead worker held is handed out at once to one that is alone, and only to one that is alone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from tests.contract.worlds import Hands
from tests.servers import NatsServer
from tests.waiting import until
from wpa.adapters.nats import NatsPorts, open_ports, streams
from wpa.adapters.nats.api import api
from wpa.adapters.nats.leftovers import release
from wpa.ports.tasks import Source

LONG_S = 60.0
TO_START_S = 0.5
"""So long, at least, it takes a process to be there after another's death."""
Connect = Callable[[str], Awaitable[NatsPorts]]


@pytest.fixture
async def connect(server: NatsServer) -> AsyncIterator[Connect]:
    """A connection as a worker makes it, announced; leases outlast every test."""
    opened: list[NatsPorts] = []

    async def connect(worker: str) -> NatsPorts:
        ports = await open_ports(server.url, worker=worker, ack_wait_s=LONG_S)
        opened.append(ports)
        await ports.live.on_nudge(worker, ignore)
        await ports.announce(worker, {"worker": worker})
        return ports

    yield connect
    for ports in opened:
        await ports.aclose()


async def ignore(tenant: str, execution: str, epoch: int, reason: str) -> None:
    raise AssertionError("to ask whether a worker is there is no nudge")


async def take(ports: NatsPorts, source: Source | str, count: int) -> Hands:
    hands = Hands()
    feed = await ports.tasks.open(source, hands)
    feed.request(count)
    return hands


async def ack_wait_s(ports: NatsPorts, consumer: str) -> float:
    info = await api(ports.transport, f"CONSUMER.INFO.{streams.TASKS}.{consumer}")
    return float(info["config"]["ack_wait"]) / 1e9


async def test_one_that_is_alone_gets_all_at_once(connect: Connect) -> None:
    dead = await connect("dead")
    for number in range(3):
        await dead.tasks.publish("acme", b"%d" % number, {})
    await dead.tasks.publish_step("globex", "gpu", b"step", {})
    first = await take(dead, "acme", 3)
    steps = await take(dead, Source("globex", "steps", "gpu"), 1)
    await until(lambda: len(first.leases) == 3 and steps.leases)
    first.leases[0].ack()
    await dead.aclose()
    await asyncio.sleep(TO_START_S)

    heir = await connect("heir")
    assert await heir.release_leftovers("heir", LONG_S) == 3
    tasks = await take(heir, "acme", 3)
    steps = await take(heir, Source("globex", "steps", "gpu"), 1)
    await until(lambda: len(tasks.leases) == 2 and steps.leases)
    assert sorted(tasks.data) == [b"1", b"2"]
    assert {lease.delivered for lease in [*tasks.leases, *steps.leases]} == {2}
    assert await ack_wait_s(heir, "tasks-acme") == LONG_S
    assert await ack_wait_s(heir, "steps-globex=gpu") == LONG_S


async def test_beside_another_nothing_is_touched(connect: Connect) -> None:
    living = await connect("living")
    await living.tasks.publish("acme", b"1", {})
    hands = await take(living, "acme", 1)
    await until(lambda: hands.leases)

    newcomer = await connect("newcomer")
    assert await newcomer.release_leftovers("newcomer", LONG_S) == 0
    info = await api(newcomer.transport, f"CONSUMER.INFO.{streams.TASKS}.tasks-acme")
    assert info["num_ack_pending"] == 1
    more = await take(newcomer, "acme", 1)
    await asyncio.sleep(0.5)
    assert not more.leases


async def test_what_is_taken_meanwhile_stays_with_its_holder(connect: Connect) -> None:
    """Two begin at once, and each takes itself for the only one."""
    dead = await connect("dead")
    await dead.tasks.publish("acme", b"old", {})
    hands = await take(dead, "acme", 1)
    await until(lambda: hands.leases)
    await dead.aclose()

    one, other = await connect("one"), await connect("other")
    await one.tasks.publish("acme", b"new", {})
    await asyncio.sleep(TO_START_S)
    hands = await take(one, "acme", 1)
    await until(lambda: hands.leases)
    # It is alone by its own account; what "one" has held for a moment only is not taken from it.
    await release(other.transport, LONG_S)
    more = await take(other, "acme", 2)
    await until(lambda: more.leases)
    await asyncio.sleep(0.3)
    assert more.data == [b"old"]


async def test_what_others_made_is_left_as_it_is(connect: Connect) -> None:
    ports = await connect("dead")
    for name in ("tasks-of-ours", "theirs"):
        subject = "workflow.steps.acme.cobol" if name == "theirs" else "workflow.steps.acme.fortran"
        config = {"durable_name": name, "ack_policy": "explicit", "ack_wait": int(2 * LONG_S * 1e9)}
        where = f"CONSUMER.CREATE.{streams.TASKS}.{name}"
        config |= {"filter_subjects": [subject, f"{subject}.urgent"]}
        await api(ports.transport, where, {"stream_name": streams.TASKS, "config": config})
    assert await release(ports.transport, LONG_S) == 0
    assert await ack_wait_s(ports, "theirs") == 2 * LONG_S
