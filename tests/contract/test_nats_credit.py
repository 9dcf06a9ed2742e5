"""A feed gives no more than it was asked for, whatever becomes of its connection."""

from __future__ import annotations

import asyncio

import pytest

from tests.chaos.proxy import Proxy
from tests.contract.test_nats_faults import again
from tests.contract.worlds import LONG_S
from tests.servers import NatsServer
from tests.waiting import until
from wpa.adapters.nats import NatsPorts, open_ports
from wpa.ports.tasks import Lease, Source

SETTLED_S = 0.5
"""By then a server has delivered what it is going to."""


async def cut(proxy: Proxy, ports: NatsPorts, tenant: str) -> None:
    """Lose the connection, and wait until it is back."""
    lost = ports.transport.nc.lapses
    proxy.cut()
    await until(lambda: ports.transport.nc.lapses != lost)
    await again(ports, tenant)


@pytest.mark.parametrize("credit", [1, 5])
async def test_a_connection_that_is_lost_now_and_then_makes_it_no_more(
    nats_server: NatsServer, tenant: str, credit: int
) -> None:
    async with Proxy(nats_server.port) as proxy:
        ports = await open_ports(proxy.url, worker="cut-off", ack_wait_s=LONG_S)
        other = await open_ports(nats_server.url, worker="other")
        try:
            taken: list[Lease] = []
            feed = await ports.tasks.open(Source(tenant, "steps", "gpu"), taken.append)
            feed.request(credit)
            for _ in range(3):
                await cut(proxy, ports, tenant)
            for number in range(10 * credit):
                await other.tasks.publish_step(tenant, "gpu", b"%d" % number, {})
            await until(lambda: len(taken) >= credit)
            await asyncio.sleep(SETTLED_S)
            assert len(taken) == credit
            for count in (2, 3):
                for lease in taken[-credit:]:
                    lease.ack()
                    feed.request(1)
                await until(lambda count=count: len(taken) >= count * credit)
                await asyncio.sleep(SETTLED_S)
                assert len(taken) == count * credit
        finally:
            await ports.aclose()
            await other.aclose()


async def test_what_came_beyond_it_counts(nats_server: NatsServer, tenant: str) -> None:
    """A server may be asked twice: what it has not answered may have been on its way."""
    ports = await open_ports(nats_server.url, worker="w", ack_wait_s=LONG_S)
    try:
        taken: list[Lease] = []
        feed = await ports.tasks.open(Source(tenant, "steps", "gpu"), taken.append)
        feed.request(2)
        feed._again()  # type: ignore[attr-defined]  # as after a refusal, or a silence
        for number in range(20):
            await ports.tasks.publish_step(tenant, "gpu", b"%d" % number, {})
        await until(lambda: len(taken) == 4)
        for lease in taken:
            lease.ack()
            feed.request(1)
        await until(lambda: len(taken) >= 6)
        await asyncio.sleep(SETTLED_S)
        assert len(taken) == 6
    finally:
        await ports.aclose()
