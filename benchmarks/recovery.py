"""Processes killed with hundreds of executions in flight: how long until all of them have ended.

Each execution takes three steps of ``STEP_S`` each. Whatever is killed is killed with SIGKILL in the middle
of that, and started again at once. Time is taken from the kill to the last terminal event, by the events'
own timestamps: client, workers and servers share one clock, and a client may be cut off itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import nats
from cluster import Cluster
from processes import server, worker
from watch import publish, start, watching

from wpa.adapters.nats import open_ports
from wpa.client import Client
from wpa.errors import PlatformError
from wpa.model import events as ev
from wpa.model.times import parse_ms

IN_FLIGHT = 500
STEP_S = 0.2
NODES = 3
GIVE_UP_S = 60.0
LOOK_EVERY_S = 0.1
WORK3 = [
    {"id": f"s{n}", "uses": "bench.work", "with": {"seconds": STEP_S}, "needs": [f"s{n - 1}"] if n else []}
    for n in range(3)
]


async def worker_killed(sync: str, scale: float) -> dict[str, Any]:
    """The only worker is killed; another is started at once."""
    async with server(sync) as embedded, contextlib.AsyncExitStack() as stack:
        first = await stack.enter_async_context(worker(embedded.url))
        count = await _begin(embedded.url, scale)
        killed_at = time.time()
        os.kill(first, signal.SIGKILL)
        await stack.enter_async_context(worker(embedded.url))
        return await _ended(embedded.url, count, killed_at)


async def one_of_two_killed(sync: str, scale: float) -> dict[str, Any]:
    """One of two workers is killed, and not started again."""
    async with server(sync) as embedded, worker(embedded.url) as first, worker(embedded.url):
        count = await _begin(embedded.url, scale)
        killed_at = time.time()
        os.kill(first, signal.SIGKILL)
        return await _ended(embedded.url, count, killed_at)


async def worker_stopped(sync: str, scale: float) -> dict[str, Any]:
    """One of two workers is told to stop, and given no time to finish."""
    hasty = {"WPA_GRACE_S": "0"}
    async with server(sync) as embedded, worker(embedded.url, hasty) as first, worker(embedded.url):
        count = await _begin(embedded.url, scale)
        stopped_at = time.time()
        os.kill(first, signal.SIGTERM)
        return await _ended(embedded.url, count, stopped_at)


async def server_killed(sync: str, scale: float) -> dict[str, Any]:
    """The server is killed and started again at once."""
    async with server(sync) as embedded, worker(embedded.url):
        count = await _begin(embedded.url, scale)
        assert embedded.pid is not None
        killed_at = time.time()
        os.kill(embedded.pid, signal.SIGKILL)
        await embedded.wait()
        await embedded.restart()
        return await _ended(embedded.url, count, killed_at)


async def leader_killed(sync: str, scale: float) -> dict[str, Any]:
    """Of three nodes, the one that leads the journals is killed, and stays away."""
    async with Cluster.of(NODES, sync) as cluster, worker(cluster.url, {"WPA_REPLICAS": str(NODES)}):
        count = await _begin(cluster.url, scale)
        killed_at = time.time()
        await cluster.kill(await cluster.leader())
        return await _ended(cluster.url, count, killed_at)


async def _begin(url: str, scale: float) -> int:
    """Start executions, and wait until all are in the middle of their work. So many are there."""
    count = max(50, int(IN_FLIGHT * scale))
    async with await Client.connect(url) as client:
        await client.deploy({"id": "work3", "version": "1", "steps": WORK3})
    nc = await nats.connect(url.split(","))
    try:
        # Whoever serves them has begun to, before it counts.
        async with watching(nc, ev.COMPLETED) as watch:
            await publish(nc, (start("work3", f"warm{n}") for n in range(20)))
            await watch.until(20)
        async with watching(nc, ev.STARTED) as watch:
            await publish(nc, (start("work3", f"x{n}") for n in range(count)))
            await watch.until(count)
    finally:
        await nc.close()
    return count


async def _ended(url: str, count: int, since_s: float) -> dict[str, Any]:
    """Wait until all have ended; how long it took, and how many were taken over."""
    deadline = time.monotonic() + GIVE_UP_S
    ports = await _patiently(lambda: open_ports(url, worker="bench"), deadline)
    try:
        while True:
            last, _ = await _patiently(lambda: ports.journal.recent("default", 4 * count), deadline)
            ours = [event for _, event in last if event.execution_id.startswith("x")]
            ended = {event.execution_id: event for event in ours if event.event in ev.TERMINAL}
            if len(ended) == count:
                break
            if time.monotonic() > deadline:
                raise RuntimeError(f"{len(ended)} of {count} ended within {GIVE_UP_S:g} s")
            await asyncio.sleep(LOOK_EVERY_S)
        names = Counter(event.event for event in ended.values())
        if set(names) != {ev.COMPLETED}:
            raise RuntimeError(f"they ended as {dict(names)}")
        return {
            "in_flight": count,
            "s": round(max(parse_ms(event.timestamp) for event in ended.values()) / 1000 - since_s, 2),
            "taken_over": sum(event.epoch > 1 for event in ended.values()),
        }
    finally:
        await ports.aclose()


async def _patiently(ask: Callable[[], Any], deadline: float) -> Any:
    """Ask again while nobody answers."""
    while True:
        try:
            return await ask()
        except PlatformError:
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(LOOK_EVERY_S)
