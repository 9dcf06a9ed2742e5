"""Executions that wait: asleep by the thousand, woken at once, and signalled."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass
from typing import Any

from nats.aio.client import Client
from processes import Usage
from watch import publish, signal, start, watching

from wpa.model.times import parse_ms, rfc3339

SLEEPERS, DUE, SIGNALLED, TO_ONE = 10_000, 1_000, 2_000, 1_000
DUE_AFTER_S = 6.0
"""Until the first timer is due: all executions are at rest by then."""
SETTLE_S = 5.0
"""Between the last event seen and the measuring of what is idle: snapshots, alarms and acks follow it."""
IDLE_S = 20.0

NAP = [{"id": "nap", "uses": "core.sleep", "with": {"for": "1h"}}]
UNTIL = [{"id": "nap", "uses": "core.sleep", "with": {"until": "${input.at}"}}]
ONE_SIGNAL = [{"id": "paid", "uses": "core.wait", "with": {"signal": "paid"}}]
MANY_SIGNALS = [
    {
        "id": "tick",
        "uses": "core.wait",
        "with": {"signal": "tick"},
        "repeat": {"until": "index == input.last", "max": TO_ONE},
    }
]

DEFINITIONS = {"nap": NAP, "until": UNTIL, "one_signal": ONE_SIGNAL, "many_signals": MANY_SIGNALS}


@dataclass(frozen=True)
class Stage:
    """A connection to a new server with a new worker, both of which can be measured."""

    nc: Client
    server: int
    worker: int
    scale: float

    def count(self, full: int) -> int:
        """So many of ``full`` as this run's scale asks for."""
        return max(100, int(full * self.scale))

    def usage(self) -> tuple[Usage, Usage]:
        """Of the server and of the worker."""
        return Usage.of(self.server), Usage.of(self.worker)


async def sleepers(stage: Stage) -> dict[str, Any]:
    """Put executions to sleep for an hour; then see what they cost, beside what was there without them."""
    nc, count = stage.nc, stage.count(SLEEPERS)
    async with watching(nc, "workflow_waiting") as watch:
        # What a worker and a server take once, they take here.
        await publish(nc, (start("nap", f"warm-{n}") for n in range(200)))
        await watch.until(200)
    await asyncio.sleep(SETTLE_S)
    empty = await _idle(stage)
    before = stage.usage()
    async with watching(nc, "workflow_waiting") as watch:
        await publish(nc, (start("nap", f"s{n}") for n in range(count)))
        took = await watch.until(count)
    await asyncio.sleep(SETTLE_S)
    asleep = stage.usage()
    idle = await _idle(stage)
    grown = [now.rss_mb - then.rss_mb for now, then in zip(asleep, before, strict=True)]
    return {
        "executions": count,
        "start_s": round(took, 2),
        "start_cpu_us": round((asleep[1].cpu_s - before[1].cpu_s) / count * 1e6),
        "server_grows_mb": round(grown[0], 1),
        "worker_grows_mb": round(grown[1], 1),
        "grows_mb": round(sum(grown), 1),
        "server_empty_percent": round(empty[0], 2),
        "server_idle_percent": round(idle[0], 2),
        "worker_empty_percent": round(empty[1], 2),
        "worker_idle_percent": round(idle[1], 2),
        "idle_percent": round(sum(idle), 2),
        "idle_more_percent": round(sum(idle) - sum(empty), 2),
    }


async def _idle(stage: Stage) -> tuple[float, float]:
    """What server and worker use while nothing is asked of them, in per cent of one core."""
    before = stage.usage()
    await asyncio.sleep(IDLE_S)
    server, worker = (
        (now.cpu_s - then.cpu_s) / IDLE_S * 100 for now, then in zip(stage.usage(), before, strict=True)
    )
    return server, worker


async def timers(stage: Stage) -> dict[str, Any]:
    """Timers due within one second: how late what follows them is seen, and whether one was early."""
    nc, count = stage.nc, stage.count(DUE)
    first_ms = int((time.time() + DUE_AFTER_S) * 1000)
    due = {f"t{n}": first_ms + n * 1000 // count for n in range(count)}
    late_ms: list[float] = []
    early = 0

    def rang(execution: str, event: bytes) -> None:
        nonlocal early
        late_ms.append(time.time() * 1000 - due[execution])
        early += parse_ms(json.loads(event)["timestamp"]) < due[execution]

    async with (
        watching(nc, "workflow_step_completed", rang) as watch,
        watching(nc, "workflow_waiting") as at_rest,
    ):
        await publish(nc, (start("until", name, {"at": rfc3339(at)}) for name, at in due.items()))
        await at_rest.until(count)
        if time.time() * 1000 > first_ms:
            raise RuntimeError(f"{count} executions were not asleep {DUE_AFTER_S:g} s after their start")
        await watch.until(count)
    late_ms.sort()
    return {
        "timers": count,
        "p50_ms": round(late_ms[count // 2], 1),
        "p99_ms": round(late_ms[count * 99 // 100], 1),
        "max_ms": round(late_ms[-1], 1),
        "early": early,
    }


async def signals(stage: Stage) -> dict[str, Any]:
    """Signals to many waiting executions, one each; then to one execution, one after the other."""
    nc, count = stage.nc, stage.count(SIGNALLED)
    payload = {"data": "x" * 190}
    async with watching(nc, "workflow_waiting") as watch:
        await publish(nc, (start("one_signal", f"g{n}") for n in range(count)))
        await watch.until(count)
    await asyncio.sleep(1)
    before = Usage.of(stage.worker)
    async with watching(nc, "workflow_completed") as watch:
        await publish(nc, (signal(f"g{n}", "paid", payload) for n in range(count)))
        took = await watch.until(count)
    cpu_s = Usage.of(stage.worker).cpu_s - before.cpu_s
    return {
        "executions": count,
        "per_s": round(count / took),
        "cpu_us": round(cpu_s / count * 1e6),
        **await _to_one(stage),
    }


async def _to_one(stage: Stage) -> dict[str, Any]:
    """One execution that takes a thousand signals: sent one by one as it takes them, and all at once."""
    nc, count = stage.nc, stage.count(TO_ONE)
    found: dict[str, Any] = {"to_one": count}
    last = {"last": count - 1}
    async with watching(nc, "workflow_waiting") as at_rest:
        await publish(nc, [start("many_signals", name, last) for name in ("row", "heap")])
        await at_rest.until(2)
    async with watching(nc, "workflow_step_completed", execution="row") as taken:
        for number in range(count):
            await publish(nc, [signal("row", "tick")])
            await taken.until(number + 1)
        found["in_turn_per_s"] = round(count / (time.perf_counter() - taken.began))
    async with watching(nc, "workflow_completed", execution="heap") as watch:
        await publish(nc, (signal("heap", "tick") for _ in range(count)))
        found["at_once_per_s"] = round(count / await watch.until(1))
    return found
