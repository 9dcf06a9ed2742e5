"""Executions that only work: throughput, latency and CPU, beside the floor.

Engine and floor take turns, so that a machine whose speed drifts is fair to both.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Callable
from typing import Any

from floor import APPENDS
from load import Load, Result, connect
from nats.aio.client import Client as Connection
from processes import HERE, Usage, process, worker
from workloads import BESIDE, ENDS, WORKLOADS

from wpa.client import Client

TOTALS = {"seq1": 6_000, "seq3": 4_000, "fan10": 1_500, "saga3": 3_000, "flow3": 4_000}
WARM_UP = 300
IN_FLIGHT = 200
SHARES = {1: 0.1, 50: 0.25}
"""With so many in flight, latency is measured over this share of the executions."""
PERCENTILES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}

Samples = dict[str, list[float]]


class Throughput:
    """Measures the workloads ``names``, round after round, on one server."""

    def __init__(self, url: str, names: list[str], scale: float, told: Callable[[str], None]) -> None:
        self._url, self._names, self._scale, self._told = url, names, scale, told
        self._samples: dict[str, Samples] = {name: defaultdict(list) for name in names}

    async def round(self) -> None:
        """Each workload, on the engine and then on the floor."""
        for name in self._names:
            nc = await connect(self._url)
            # A worker takes every tenant's tasks, the floor's too: it has to be gone by then.
            async with worker(self._url) as pid:
                await self._engine(nc, pid, name)
            async with process(FLOOR, self._url) as pid:
                await self._floor(nc, pid, name)
            await nc.close()

    def report(self) -> dict[str, dict[str, Any]]:
        """Medians over the rounds; ratios are those within a round."""
        found: dict[str, dict[str, Any]] = {}
        for name, samples in self._samples.items():
            row: dict[str, Any] = {key: _median(values) for key, values in samples.items()}
            row["ratio"] = _ratio(samples["per_s"], samples["floor_per_s"])
            row["cpu_ratio"] = _ratio(samples["floor_cpu_us"], samples["cpu_us"])
            if (plan := BESIDE.get(name)) in self._samples:
                row[f"beside_{plan}"] = _ratio(samples["per_s"], self._samples[plan]["per_s"])
            row["per_s_all"] = [round(value) for value in samples["per_s"]]
            row["floor_per_s_all"] = [round(value) for value in samples["floor_per_s"]]
            found[name] = row
        return found

    def _total(self, name: str) -> int:
        return max(100, int(TOTALS[name] * self._scale))

    async def _engine(self, nc: Connection, pid: int, name: str) -> None:
        if name in WORKLOADS:  # a flow is the worker's own
            async with await Client.connect(self._url) as client:
                await client.deploy({"id": name, "version": "1", "steps": WORKLOADS[name]})
        samples, total = self._samples[name], self._total(name)
        load = Load(nc, "default", name)
        result, cpu_us = await _at_full_load(load, pid, total)
        if set(result.ended) != {ENDS[name]}:
            raise RuntimeError(f"{name} ended as {result.ended}")
        samples["per_s"].append(result.per_s)
        samples["cpu_us"].append(cpu_us)
        self._told(f"{name} {result.per_s:.0f}/s")
        for in_flight, share in SHARES.items():
            result = await load.run(max(100, int(total * share)), in_flight)
            for label, percentile in PERCENTILES.items():
                samples[f"{label}_ms_at_{in_flight}"].append(result.percentile(percentile))

    async def _floor(self, nc: Connection, pid: int, name: str) -> None:
        load = Load(nc, "floor", name, last_event=APPENDS[name])
        result, cpu_us = await _at_full_load(load, pid, self._total(name))
        self._samples[name]["floor_per_s"].append(result.per_s)
        self._samples[name]["floor_cpu_us"].append(cpu_us)
        self._told(f"floor of {name} {result.per_s:.0f}/s")


async def _at_full_load(load: Load, pid: int, total: int) -> tuple[Result, float]:
    """What the client saw, and the microseconds of a process's CPU for each execution."""
    await load.run(WARM_UP, 50)
    before = Usage.of(pid)
    result = await load.run(total, IN_FLIGHT)
    return result, (Usage.of(pid).cpu_s - before.cpu_s) / total * 1e6


def _median(values: list[float]) -> float:
    value = statistics.median(values)
    return round(value) if value >= 100 else round(value, 2)


def _ratio(these: list[float], those: list[float]) -> float:
    return round(statistics.median(a / b for a, b in zip(these, those, strict=True)), 2)
