"""Workers that have different WPA_ACK_WAIT_S, as while the setting is being changed: nobody's lease gets shorter."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from tests.contract.test_nats_leftovers import ack_wait_s, ignore, take
from tests.servers import NatsServer
from tests.waiting import until
from wpa.adapters.nats import NatsPorts, open_ports

Connect = Callable[[str, float], Awaitable[NatsPorts]]


@pytest.fixture
async def connect(server: NatsServer) -> AsyncIterator[Connect]:
    """A connection as a worker makes it, announced."""
    opened: list[NatsPorts] = []

    async def connect(worker: str, ack_wait_s: float) -> NatsPorts:
        ports = await open_ports(server.url, worker=worker, ack_wait_s=ack_wait_s)
        opened.append(ports)
        await ports.live.on_nudge(worker, ignore)
        await ports.announce(worker, {"worker": worker})
        await ports.release_leftovers(worker, ack_wait_s)
        return ports

    yield connect
    for ports in opened:
        await ports.aclose()


async def test_a_newcomer_shortens_nobodys_lease(connect: Connect, caplog: pytest.LogCaptureFixture) -> None:
    patient = await connect("patient", 30.0)
    await patient.tasks.publish("acme", b"1", {})
    held = await take(patient, "acme", 1)
    await until(lambda: held.leases)
    hasty = await connect("hasty", 0.4)
    more = await take(hasty, "acme", 1)
    await take(hasty, "globex", 1)
    await asyncio.sleep(1)
    assert not more.leases
    assert await ack_wait_s(hasty, "tasks-acme") == 30.0
    assert caplog.text.count("WPA_ACK_WAIT_S") == 1
    assert "30 s, not 0.4 s: another worker had a longer WPA_ACK_WAIT_S" in caplog.text


async def test_a_longer_lease_is_had_at_once_and_by_all(connect: Connect) -> None:
    hasty = await connect("hasty", 0.4)
    await take(hasty, "acme", 1)
    patient = await connect("patient", 30.0)
    await take(patient, "acme", 1)
    assert await ack_wait_s(hasty, "tasks-acme") == 30.0


async def test_a_shorter_lease_is_had_by_the_first_when_all_were_stopped(connect: Connect) -> None:
    patient = await connect("patient", 30.0)
    await take(patient, "acme", 1)
    await patient.aclose()
    hasty = await connect("hasty", 0.4)
    await take(hasty, "acme", 1)
    assert await ack_wait_s(hasty, "tasks-acme") == 0.4
