"""What grows with an execution, and must not: what a step costs in long plans, and in large states."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from load import Load, connect
from processes import Usage, server, worker
from waiting import Stage
from watch import publish, start, watching
from workloads import DATA, WORKLOADS

from wpa.client import Client
from wpa.model import events as ev

WARM_UP = 500
LONG, SHORT_ONES = 1_000, 999
LARGE_STEPS, LARGE_BYTES = 200, 5_000


def _sequence(count: int, output: dict[str, str]) -> list[dict[str, Any]]:
    return [
        {"id": f"s{n}", "uses": "core.echo", "with": output, "needs": [f"s{n - 1}"] if n else []}
        for n in range(count)
    ]


DEFINITIONS = {
    "seq3": WORKLOADS["seq3"],
    "long": _sequence(LONG, DATA),
    "large": _sequence(LARGE_STEPS, {"data": "x" * LARGE_BYTES}),
}


async def long_plan(sync: str, scale: float) -> dict[str, Any]:
    """One execution of a plan of a thousand steps, beside as many steps in plans of three, one at a time."""
    async with _stage(sync, scale) as stage:
        load = Load(stage.nc, "default", "seq3")
        await load.run(WARM_UP, 1)
        await _one(stage, "long", "warm-up")
        short_cpu_s = Usage.of(stage.worker).cpu_s
        began = time.perf_counter()
        await load.run(SHORT_ONES // 3, 1)
        short_s = time.perf_counter() - began
        short_cpu_s = Usage.of(stage.worker).cpu_s - short_cpu_s
        cpu_s = Usage.of(stage.worker).cpu_s
        took = await _one(stage, "long", "measured")
        cpu_s = Usage.of(stage.worker).cpu_s - cpu_s
    return {
        "s": round(took, 2),
        "short_s": round(short_s, 2),
        "ratio": round(took / short_s, 2),
        "cpu_ratio": round(cpu_s / short_cpu_s, 2),
    }


async def large_state(sync: str, scale: float) -> dict[str, Any]:
    """An execution whose steps' outputs come to a megabyte: how often the worker sends each byte of them."""
    async with _stage(sync, scale) as stage:
        await _one(stage, "large", "warm-up")
        sent = _written(stage.worker)
        took = await _one(stage, "large", "measured")
        sent = _written(stage.worker) - sent
    return {
        "state_mb": LARGE_STEPS * LARGE_BYTES / 1e6,
        "s": round(took, 2),
        "sent_mb": round(sent / 1e6, 2),
        "sent_ratio": round(sent / (LARGE_STEPS * LARGE_BYTES), 2),
    }


async def _one(stage: Stage, workflow: str, execution: str) -> float:
    """Seconds that one execution takes."""
    async with watching(stage.nc, ev.COMPLETED, execution=execution) as watch:
        await publish(stage.nc, [start(workflow, execution)])
        return await watch.until(1)


def _written(pid: int) -> int:
    """Bytes that a process has written, to sockets too."""
    lines = Path(f"/proc/{pid}/io").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("wchar")).split()[1])


@contextlib.asynccontextmanager
async def _stage(sync: str, scale: float) -> AsyncIterator[Stage]:
    async with server(sync) as embedded, worker(embedded.url) as working:
        assert embedded.pid is not None
        async with await Client.connect(embedded.url) as client:
            for name, steps in DEFINITIONS.items():
                await client.deploy({"id": name, "version": "1", "steps": steps})
        nc = await connect(embedded.url)
        try:
            yield Stage(nc, embedded.pid, working, scale)
        finally:
            await nc.close()
