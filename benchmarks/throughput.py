"""Executions that only work: throughput, latency and CPU, beside the floor.

Engine and floor follow each other closely, so that a machine whose speed drifts is fair to both.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from cluster import Cluster
from floor import APPENDS
from load import Load, Result, connect
from nats.aio.client import Client as Connection
from processes import HERE, Usage, process, server, worker
from workloads import ENDS, WORKLOADS

from wpa.client import Client

__all__ = ["FLOOR", "GROUNDS", "Ground", "measure"]

TOTALS = {"seq1": 6_000, "seq3": 4_000, "fan10": 1_500, "saga3": 3_000, "flow3": 4_000}
FLOOR = str(HERE / "floor.py")
WARM_UP = 300
IN_FLIGHT = 200
SHARES = {1: 0.1, 50: 0.25}
"""With so many in flight, latency is measured over this share of the executions."""
PERCENTILES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}


@dataclass(frozen=True)
class Ground:
    """The servers that workloads are measured on.

    Attributes:
        what: what they are, in the words of the page.
        nodes: how many; each stream has as many replicas.
        sync: their ``sync_interval``; None for what the run is asked for.
        share: of the executions, so many: where each takes longer.
    """

    what: str
    nodes: int = 1
    sync: str | None = None
    share: float = 1.0

    @contextlib.asynccontextmanager
    async def servers(self, sync: str) -> AsyncIterator[str]:
        """With nothing in them; their addresses."""
        sync = self.sync or sync
        if self.nodes == 1:
            async with server(sync) as embedded:
                yield embedded.url
        else:
            async with Cluster.of(self.nodes, sync) as cluster:
                yield cluster.url


GROUNDS = {
    "": Ground("the embedded server, default durability"),
    "always": Ground("one node, each write synced (`sync_interval: always`)", sync="always", share=0.2),
    "cluster": Ground(
        "three nodes on this machine, each write synced by all of them", nodes=3, sync="always", share=0.3
    ),
}


async def measure(workload: str, ground: Ground, sync: str, scale: float) -> dict[str, Any]:
    """One workload, by the engine and then by the floor: what it measured, all of it numbers."""
    total = max(100, int(TOTALS[workload] * scale * ground.share))
    together = ground.nodes == 1 and (ground.sync or sync) == "always"
    settings = {"WPA_REPLICAS": str(ground.nodes), "WPA_GROUP_APPENDS": str(together)}
    async with ground.servers(sync) as url, contextlib.AsyncExitStack() as stack:
        nc = await connect(url)
        stack.push_async_callback(nc.close)
        # A worker takes every tenant's tasks, the floor's too: it has to be gone by then.
        async with worker(url, settings) as pid:
            found = await _engine(nc, url, pid, workload, total)
        async with process(FLOOR, url) as pid:
            found |= await _floor(nc, pid, workload, total)
    found["ratio"] = found["per_s"] / found["floor_per_s"]
    found["cpu_ratio"] = found["floor_cpu_us"] / found["cpu_us"]
    return {key: _rounded(value) for key, value in found.items()}


async def _engine(nc: Connection, url: str, pid: int, workload: str, total: int) -> dict[str, Any]:
    if workload in WORKLOADS:  # a flow is the worker's own
        async with await Client.connect(url) as client:
            await client.deploy({"id": workload, "version": "1", "steps": WORKLOADS[workload]})
    load = Load(nc, "default", workload)
    result, cpu_us = await _at_full_load(load, pid, total)
    if set(result.ended) != {ENDS[workload]}:
        raise RuntimeError(f"{workload} ended as {result.ended}")
    found = {"per_s": result.per_s, "cpu_us": cpu_us}
    for in_flight, share in SHARES.items():
        result = await load.run(max(100, int(total * share)), in_flight)
        for label, percentile in PERCENTILES.items():
            found[f"{label}_ms_at_{in_flight}"] = result.percentile(percentile)
    return found


async def _floor(nc: Connection, pid: int, workload: str, total: int) -> dict[str, Any]:
    load = Load(nc, "floor", workload, last_event=APPENDS[workload])
    result, cpu_us = await _at_full_load(load, pid, total)
    return {"floor_per_s": result.per_s, "floor_cpu_us": cpu_us}


async def _at_full_load(load: Load, pid: int, total: int) -> tuple[Result, float]:
    """What the client saw, and the microseconds of a process's CPU for each execution."""
    await load.run(WARM_UP, 50)
    before = Usage.of(pid)
    result = await load.run(total, IN_FLIGHT)
    return result, (Usage.of(pid).cpu_s - before.cpu_s) / total * 1e6


def _rounded(value: float) -> float:
    return round(value) if value >= 100 else round(value, 2)
