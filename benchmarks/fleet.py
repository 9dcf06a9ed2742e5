"""Several workers on one machine: what a second one adds, and what too many take away."""

from __future__ import annotations

import asyncio
import contextlib
import statistics
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from typing import Any

from load import Load, connect
from processes import Usage, server, worker
from workloads import WORKLOADS

from wpa.client import Client

WORKERS = (1, 2, 8)
TURN, TURNS, IN_FLIGHT = 1_500, 6, 400
WARM_UP = 500
"""So many executions for each worker, before any are counted."""
SETTLE_S = 0.05
"""A snapshot and an ack behind the last end count as well."""


@dataclass(frozen=True)
class Turn:
    """Executions per second, and microseconds of CPU for each: all workers together, and their server."""

    per_s: float
    workers_us: float
    server_us: float

    @property
    def cpu_us(self) -> float:
        return self.workers_us + self.server_us


@dataclass(frozen=True)
class Fleet:
    """Workers of one server, and a client."""

    server: int
    workers: list[int]
    load: Load

    def _cpu_s(self) -> tuple[float, float]:
        return sum(Usage.of(pid).cpu_s for pid in self.workers), Usage.of(self.server).cpu_s

    async def turn(self, executions: int) -> Turn:
        """Run so many executions."""
        workers_s, server_s = self._cpu_s()
        per_s = (await self.load.run(executions, IN_FLIGHT)).per_s
        await asyncio.sleep(SETTLE_S)
        workers_after_s, server_after_s = self._cpu_s()
        each_us = 1e6 / executions
        return Turn(per_s, (workers_after_s - workers_s) * each_us, (server_after_s - server_s) * each_us)


async def workers(sync: str, scale: float) -> dict[str, Any]:
    """``seq3`` by one, two and eight workers, in turns: each fleet is up all the time, idle but in its own.

    What else the machine does then meets all of them, and a ratio is one of neighbours in time.
    """
    executions = max(500, int(TURN * scale))
    turns: dict[int, list[Turn]] = {count: [] for count in WORKERS}
    async with contextlib.AsyncExitStack() as stack:
        fleets = {count: await stack.enter_async_context(_fleet(sync, count)) for count in WORKERS}
        for number in range(TURNS):
            # To and fro: none is always the one after the largest.
            for count in WORKERS[:: -1 if number % 2 else 1]:
                turns[count].append(await fleets[count].turn(executions))
    per_s = {count: statistics.median(turn.per_s for turn in turns[count]) for count in WORKERS}
    best = max(WORKERS, key=lambda count: per_s[count])
    one, two, eight = (turns[count] for count in WORKERS)
    return {
        **{f"by_{count}_per_s": round(per_s[count]) for count in WORKERS},
        "second_adds": _median_ratio([turn.per_s for turn in two], [turn.per_s for turn in one]),
        "eight_of_best": _median_ratio([turn.per_s for turn in eight], [turn.per_s for turn in turns[best]]),
        "eight_cpu_ratio": _median_ratio([turn.cpu_us for turn in eight], [turn.cpu_us for turn in one]),
        **{f"by_{count}_worker_us": _median(turn.workers_us for turn in turns[count]) for count in WORKERS},
        **{f"by_{count}_server_us": _median(turn.server_us for turn in turns[count]) for count in WORKERS},
    }


def _median(values: Iterable[float]) -> int:
    return round(statistics.median(values))


def _median_ratio(these: Iterable[float], those: Iterable[float]) -> float:
    """The median of the ratios, turn by turn."""
    return round(statistics.median(this / that for this, that in zip(these, those, strict=True)), 2)


@contextlib.asynccontextmanager
async def _fleet(sync: str, count: int) -> AsyncIterator[Fleet]:
    """So many workers on a server of their own, warmed up."""
    async with contextlib.AsyncExitStack() as stack:
        embedded = await stack.enter_async_context(server(sync))
        assert embedded.pid is not None
        pids = [await stack.enter_async_context(worker(embedded.url)) for _ in range(count)]
        async with await Client.connect(embedded.url) as client:
            await client.deploy({"id": "seq3", "version": "1", "steps": WORKLOADS["seq3"]})
        nc = await connect(embedded.url)
        stack.push_async_callback(nc.close)
        load = Load(nc, "default", "seq3")
        await load.run(WARM_UP * count, IN_FLIGHT)
        yield Fleet(embedded.pid, pids, load)
