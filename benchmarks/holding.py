"""What a worker holds: its memory when idle and with thousands in flight, what keeping leases alive costs,
and whether it grows.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import Any

from load import Load, connect
from processes import Usage, server, worker
from waiting import Stage
from watch import publish, start, watching
from workloads import WORKLOADS

from wpa.client import Client
from wpa.model import events as ev

FEW, MANY = 500, 5_000
HELD_S = 20.0
MEASURED_S = 6.0
SETTLE_S = 3.0
SOAK_S, SOAK_ROUND, SOAK_IN_FLIGHT = 60.0, 2_000, 200
WARM_UP_SHARE = 0.25
"""The share of a soak after which growth counts: tables and pools have their size by then."""
HELD = [{"id": "hold", "uses": "bench.work", "with": {"seconds": HELD_S}}]


async def held(sync: str, scale: float) -> dict[str, Any]:
    """A worker that is idle; that has some in flight; and very many. Nothing happens but heartbeats."""
    many = max(FEW, int(MANY * scale))
    async with _stage(sync, scale, {"WPA_CONCURRENCY": str(MANY + FEW)}) as stage:
        await asyncio.sleep(SETTLE_S)
        idle = await _watched(stage, 0, "idle")
        few = await _watched(stage, FEW, "few")
        most = await _watched(stage, many, "many")
    return {
        "in_flight": many,
        "idle_mb": idle["worker_mb"],
        "few_worker_percent": few["worker_percent"],
        "few_server_percent": few["server_percent"],
        "many_mb": most["worker_mb"],
        "many_worker_percent": most["worker_percent"],
        "many_server_percent": most["server_percent"],
    }


async def _watched(stage: Stage, count: int, called: str) -> dict[str, float]:
    """Memory, and CPU in per cent of one core, of so many executions in flight."""
    nc = stage.nc
    async with watching(nc, ev.COMPLETED) as ended:
        async with watching(nc, ev.STARTED) as started:
            await publish(nc, (start("held", f"{called}-{number}") for number in range(count)))
            await started.until(count)
        await asyncio.sleep(SETTLE_S)
        before = stage.usage()
        await asyncio.sleep(MEASURED_S)
        after = stage.usage()
        await ended.until(count)
    used = [(now.cpu_s - then.cpu_s) / MEASURED_S * 100 for now, then in zip(after, before, strict=True)]
    return {
        "worker_mb": round(after[1].rss_mb, 1),
        "server_percent": round(used[0], 1),
        "worker_percent": round(used[1], 1),
    }


async def soak(sync: str, scale: float) -> dict[str, Any]:
    """A worker under full load: what it grows by after it has warmed up."""
    seconds = SOAK_S * scale
    async with _stage(sync, scale) as stage:
        load = Load(stage.nc, "default", "seq3")
        began, executions, sizes = time.monotonic(), 0, list[tuple[float, float]]()
        while (at := time.monotonic() - began) < seconds:
            await load.run(SOAK_ROUND, SOAK_IN_FLIGHT)
            executions += SOAK_ROUND
            sizes.append((at, Usage.of(stage.worker).rss_mb))
    warm = [size for at, size in sizes if at >= seconds * WARM_UP_SHARE] or [sizes[-1][1]]
    third = max(1, len(warm) // 3)
    return {
        "seconds": round(seconds),
        "executions": executions,
        "rss_mb": round(warm[-1], 1),
        "grows_mb": round(min(warm[-third:]) - min(warm[:third]), 1),
    }


@contextlib.asynccontextmanager
async def _stage(sync: str, scale: float, env: dict[str, str] | None = None) -> Any:
    async with server(sync) as embedded, worker(embedded.url, env) as working:
        assert embedded.pid is not None
        async with await Client.connect(embedded.url) as client:
            for name, steps in {"held": HELD, "seq3": WORKLOADS["seq3"]}.items():
                await client.deploy({"id": name, "version": "1", "steps": steps})
        nc = await connect(embedded.url)
        try:
            yield Stage(nc, embedded.pid, working, scale)
        finally:
            await nc.close()
