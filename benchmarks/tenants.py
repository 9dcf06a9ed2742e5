"""Tenants side by side: one behind another's backlog, and a thousand of them beside one."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from typing import Any

from load import TERMINAL, connect
from nats.aio.client import Client as Connection
from nats.aio.msg import Msg
from processes import server, worker
from watch import start
from workloads import WORKLOADS

from wpa.client import Client
from wpa.client.connecting import flush

BACKLOG, SINGLES, SINGLE_EVERY_S = 100_000, 200, 0.02
TENANTS, EXECUTIONS, IN_FLIGHT = 1_000, 8_000, 200
LEAST_BACKLOG = 60_000
"""It must last for as long as the single starts take."""
WARM_UP = 2_000
GIVE_UP_S = 60.0
HEARD_AFTER_S = 0.1
"""What is republished in the first moments after a subscription may miss it (docs/adr/0003)."""
STEPS = WORKLOADS["seq1"]


class Ends:
    """Sees executions end, whoever's they are."""

    def __init__(self) -> None:
        self.seen: dict[str, float] = {}
        self._changed = asyncio.Event()

    async def take(self, message: Msg) -> None:
        """The subscription's callback."""
        head = message.data[:400]
        if any(mark in head for mark in TERMINAL):
            self.seen[message.subject] = time.perf_counter()
            self._changed.set()

    async def until(self, subject: str) -> float:
        """Wait for the end of an execution; when it was seen."""
        async with asyncio.timeout(GIVE_UP_S):
            while subject not in self.seen:
                self._changed.clear()
                await self._changed.wait()
        return self.seen[subject]


@contextlib.asynccontextmanager
async def _ends(nc: Connection, tenant: str) -> AsyncIterator[Ends]:
    ends = Ends()
    subscription = await nc.subscribe(
        f"workflow.events.{tenant}.*", cb=ends.take, pending_msgs_limit=0, pending_bytes_limit=0
    )
    await flush(nc)
    await asyncio.sleep(HEARD_AFTER_S)
    try:
        yield ends
    finally:
        await subscription.unsubscribe()


async def behind_a_backlog(sync: str, scale: float) -> dict[str, Any]:
    """Single starts of one tenant, while another's hundred thousand tasks are worked on."""
    backlog = max(LEAST_BACKLOG, int(BACKLOG * scale))
    async with server(sync) as embedded:
        async with worker(embedded.url):
            for tenant in ("many", "few"):
                await _deploy(embedded.url, tenant)
        nc = await connect(embedded.url)
        try:
            for number in range(backlog):
                await nc.publish("workflow.tasks.many", start("seq1", f"m{number}"))
            while await _waiting(nc) < backlog:
                await asyncio.sleep(0.1)
            async with worker(embedded.url):
                took = []
                async with _ends(nc, "few") as ends:
                    await _single(nc, ends, "few", "warm-up")
                    for number in range(SINGLES):
                        took.append(await _single(nc, ends, "few", f"f{number}"))
                        await asyncio.sleep(SINGLE_EVERY_S)
                left = await _waiting(nc)
                await _deploy(embedded.url, "fresh")
                async with _ends(nc, "fresh") as ends:
                    fresh = await _single(nc, ends, "fresh", "first")
        finally:
            await nc.close()
    took.sort()
    if not left:
        raise RuntimeError(f"the backlog was gone before the last start; half took {took[SINGLES // 2]:g} ms")
    return {
        "backlog": backlog,
        "left": left,
        "p50_ms": round(took[len(took) // 2], 1),
        "p99_ms": round(took[len(took) * 99 // 100], 1),
        "max_ms": round(took[-1], 1),
        "new_tenant_ms": round(fresh, 1),
    }


async def _waiting(nc: Connection) -> int:
    """How many tasks there are."""
    return (await nc.jetstream().stream_info("WPA_TASKS")).state.messages


async def _single(nc: Connection, ends: Ends, tenant: str, execution: str) -> float:
    """Milliseconds from the publish of one start to its end."""
    began = time.perf_counter()
    await nc.publish(f"workflow.tasks.{tenant}", start("seq1", execution))
    await flush(nc)
    return (await ends.until(f"workflow.events.{tenant}.{execution}") - began) * 1000


async def thousand(sync: str, scale: float) -> dict[str, Any]:
    """As many executions, first of one tenant, then of a thousand in turn."""
    count, total = max(10, int(TENANTS * scale)), max(500, int(EXECUTIONS * scale))
    names = [f"t{number}" for number in range(count)]
    async with server(sync) as embedded, worker(embedded.url):
        for tenant in names:
            await _deploy(embedded.url, tenant)
        nc = await connect(embedded.url)
        try:
            await _per_s(nc, names, max(count, WARM_UP), "w")
            one = await _per_s(nc, names[:1], total, "a")
            many = await _per_s(nc, names, total, "b")
        finally:
            await nc.close()
    return {
        "tenants": count,
        "one_per_s": round(one),
        "many_per_s": round(many),
        "ratio": round(many / one, 2),
    }


async def _per_s(nc: Connection, tenants: list[str], total: int, prefix: str) -> float:
    """Executions per second: so many, of the tenants in turn, ``IN_FLIGHT`` at a time."""
    begun = ended = 0
    done = asyncio.Event()

    async def begin() -> None:
        nonlocal begun
        begun += 1
        await nc.publish(f"workflow.tasks.{tenants[begun % len(tenants)]}", start("seq1", f"{prefix}{begun}"))

    async def take(message: Msg) -> None:
        nonlocal ended
        if not any(mark in message.data[:400] for mark in TERMINAL):
            return
        ended += 1
        if begun < total:
            await begin()
        elif ended == total:
            done.set()

    subscription = await nc.subscribe(
        "workflow.events.*.*", cb=take, pending_msgs_limit=0, pending_bytes_limit=0
    )
    await flush(nc)
    await asyncio.sleep(HEARD_AFTER_S)
    began = time.perf_counter()
    for _ in range(min(IN_FLIGHT, total)):
        await begin()
    async with asyncio.timeout(GIVE_UP_S):
        await done.wait()
    took = time.perf_counter() - began
    await subscription.unsubscribe()
    return total / took


async def _deploy(url: str, tenant: str) -> None:
    async with await Client.connect(url, tenant) as client:
        await client.deploy({"id": "seq1", "version": "1", "steps": STEPS})
