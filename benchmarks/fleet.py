"""Several workers on one machine: what a second one adds, and what too many take away."""

from __future__ import annotations

import contextlib
from typing import Any

from load import Load, connect
from processes import server, worker
from workloads import WORKLOADS

from wpa.client import Client

WORKERS = (1, 2, 8)
TOTAL, IN_FLIGHT, WARM_UP = 4_000, 400, 1_000


async def workers(sync: str, scale: float) -> dict[str, Any]:
    """``seq3`` by one, two and eight workers, one after the other, on one server."""
    total = max(500, int(TOTAL * scale))
    per_s: dict[int, float] = {}
    async with server(sync) as embedded:
        for count in WORKERS:
            async with contextlib.AsyncExitStack() as stack:
                for _ in range(count):
                    await stack.enter_async_context(worker(embedded.url))
                async with await Client.connect(embedded.url) as client:
                    await client.deploy({"id": "seq3", "version": "1", "steps": WORKLOADS["seq3"]})
                nc = await connect(embedded.url)
                load = Load(nc, "default", "seq3")
                await load.run(WARM_UP, IN_FLIGHT)
                per_s[count] = (await load.run(total, IN_FLIGHT)).per_s
                await nc.close()
    return {
        **{f"by_{count}_per_s": round(value) for count, value in per_s.items()},
        "second_adds": round(per_s[2] / per_s[1], 2),
        "eight_of_best": round(per_s[8] / max(per_s.values()), 2),
    }
