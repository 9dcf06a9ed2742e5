"""A million finished executions behind: what one more costs, and what they take of memory and disk."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import statistics
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bulk import fill
from load import INPUT, Load, connect
from processes import Usage, server, worker
from workloads import WORKLOADS

from wpa.adapters.nats.server import EmbeddedServer
from wpa.client import Client

BEHIND, TURN, TURNS, IN_FLIGHT = 1_000_000, 1_000, 12, 200
WARM_UP = 2_000
LIKE = "like-0000000"
DISK_BYTES = 10_000
"""What each of those behind takes at most."""
SETTLE_S = 0.05
"""A snapshot and an ack behind the last end count as well."""
CACHED_S = 15.0
"""The server keeps what it has written at hand for some seconds; that is no cost of what lies there."""


@dataclass(frozen=True)
class Turn:
    """Executions per second, and seconds of the server's and the worker's CPU for each."""

    per_s: float
    cpu_s: float


@dataclass(frozen=True)
class Side:
    """A server with a worker, and a client."""

    server: EmbeddedServer
    worker: int
    load: Load

    def usage(self) -> Usage:
        """Of the server."""
        assert self.server.pid is not None
        return Usage.of(self.server.pid)

    async def turn(self, executions: int) -> Turn:
        """Run so many executions."""
        before = self.usage().cpu_s + Usage.of(self.worker).cpu_s
        per_s = (await self.load.run(executions, IN_FLIGHT)).per_s
        await asyncio.sleep(SETTLE_S)
        return Turn(per_s, (self.usage().cpu_s + Usage.of(self.worker).cpu_s - before) / executions)


async def behind(sync: str, scale: float) -> dict[str, Any]:
    """``seq3`` on a store with very many finished executions and on an empty one, in turns."""
    finished, executions = max(1_000, int(BEHIND * scale)), max(200, int(TURN * min(1.0, scale)))
    if (free := shutil.disk_usage(tempfile.gettempdir()).free) < finished * DISK_BYTES:
        needed = f"{finished * DISK_BYTES / 1e9:.1f} GB, and {tempfile.gettempdir()} has {free / 1e9:.1f}"
        raise RuntimeError(f"{finished} executions need {needed}; set TMPDIR, or a smaller --scale")
    async with _side(sync) as full, _side(sync) as empty:
        await fill(full.server.url, LIKE, finished)
        most = full.usage().rss_mb
        await asyncio.sleep(CACHED_S)
        turns = [(await full.turn(executions), await empty.turn(executions)) for _ in range(TURNS)]
        grown = full.usage().rss_mb - empty.usage().rss_mb
        stored = _bytes_in(full.server.data_dir)
    return {
        "finished": finished,
        "per_s": round(statistics.median(one.per_s for one, _ in turns)),
        "empty_per_s": round(statistics.median(other.per_s for _, other in turns)),
        "ratio": round(statistics.median(one.per_s / other.per_s for one, other in turns), 2),
        "cpu_ratio": round(statistics.median(other.cpu_s / one.cpu_s for one, other in turns), 2),
        "server_mb": round(grown),
        "server_most_mb": round(most),
        "disk_kb": round(stored / 1_000 / finished, 1),
    }


def _bytes_in(folder: Path) -> int:
    """What the files in a folder take."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


@contextlib.asynccontextmanager
async def _side(sync: str) -> AsyncIterator[Side]:
    """Warmed up, with one finished execution of ``seq3`` called ``LIKE``."""
    async with server(sync) as embedded, worker(embedded.url) as working:
        async with await Client.connect(embedded.url) as client:
            await client.deploy({"id": "seq3", "version": "1", "steps": WORKLOADS["seq3"]})
            await client.start("seq3", INPUT, execution_id=LIKE)
            await client.result(LIKE)
        nc = await connect(embedded.url)
        try:
            load = Load(nc, "default", "seq3")
            await load.run(WARM_UP, IN_FLIGHT)
            yield Side(embedded, working, load)
        finally:
            await nc.close()
