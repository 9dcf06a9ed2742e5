"""The outside client of the benchmarks: publishes starts, watches events, measures from both ends.

The same client drives the engine and the floor, so that both bear the same cost. It shares the machine with
what it measures, so it is a light one: it reads events with the engine's own parser, and looks only for the
bytes that an end is known by. An execution's latency is from its start's publish to its terminal event, as
the client sees them.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import time
from dataclasses import dataclass, field

import nats
from nats.aio.client import Client

from wpa.adapters.nats.wire_parser import Direct, Message, WireParser
from wpa.client.connecting import flush

TERMINAL = (b'"workflow_completed"', b'"workflow_rolled_back"', b'"workflow_failed"')
STEP = b'"event":"workflow_step_'
"""What most events are; none of them is an end."""
INPUT = {"order": "o-4711", "customer": "c-1", "note": "n" * 150}


@dataclass
class Result:
    """What one run measured."""

    per_s: float
    latencies_ms: list[float] = field(repr=False)
    ended: dict[str, int] = field(default_factory=dict)

    def percentile(self, share: float) -> float:
        ordered = sorted(self.latencies_ms)
        return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else 0.0

    @property
    def median(self) -> float:
        return statistics.median(self.latencies_ms) if self.latencies_ms else 0.0


class Load:
    """Keeps ``in_flight`` executions under way until ``total`` have ended."""

    def __init__(self, nc: Client, tenant: str, workflow: str, *, last_event: int | None = None) -> None:
        self._nc, self._tenant, self._workflow = nc, tenant, workflow
        self._last_event = last_event
        """For the floor: the count of events that end an execution (they have no names there)."""
        self._counts: dict[str, int] = {}
        self._started: dict[str, float] = {}
        self._latencies: list[float] = []
        self._ended: dict[str, int] = {}
        self._total = self._published = 0
        self._run = ""
        self._ended_one = asyncio.Event()

    def _start_one(self) -> bytes:
        execution = f"{self._run}-{self._published}"
        self._published += 1
        self._started[execution] = time.perf_counter()
        task = {
            "type": "workflow_start",
            "workflow_id": self._workflow,
            "execution_id": execution,
            "payload": {"input_data": INPUT},
        }
        return json.dumps(task).encode()

    def _on_event(self, message: Message) -> None:
        execution = message.subject.rpartition(".")[2]
        if self._last_event is not None:
            self._counts[execution] = self._counts.get(execution, 0) + 1
            if self._counts[execution] < self._last_event:
                return
            name = "floor"
        else:
            head = message.data[:400]
            if STEP in head:
                return
            name = next((t.decode().strip('"') for t in TERMINAL if t in head), "")
            if not name:
                return
        started = self._started.pop(execution, None)
        if started is None:
            return
        self._latencies.append((time.perf_counter() - started) * 1000)
        self._ended[name] = self._ended.get(name, 0) + 1
        self._ended_one.set()

    async def _keep_going(self, in_flight: int) -> None:
        """Start executions and wait for their ends."""
        subject = f"workflow.tasks.{self._tenant}"
        while self._started or self._published < self._total:
            self._ended_one.clear()
            while len(self._started) < in_flight and self._published < self._total:
                await self._nc.publish(subject, self._start_one())
            await self._ended_one.wait()

    def _missing(self, timeout_s: float) -> str:
        """Which executions have not ended, for whoever has to find out why."""
        open_ = len(self._started)
        examples = ", ".join(list(self._started)[:3])
        return (
            f"{self._tenant}/{self._workflow}: no end of {open_} was seen within {timeout_s:g} s, of the "
            f"{self._published} executions that it started, such as {examples}"
        )

    async def run(self, total: int, in_flight: int, timeout_s: float = 120.0) -> Result:
        self._total, self._published, self._run = total, 0, f"b{time.time_ns():x}"
        self._latencies, self._ended = [], {}
        self._counts.clear()
        sub = await self._nc.subscribe(f"workflow.events.{self._tenant}.*")
        sub._pending_queue = Direct(self._on_event)  # noqa: SLF001
        await flush(self._nc)
        began = time.perf_counter()
        try:
            async with asyncio.timeout(timeout_s):
                await self._keep_going(in_flight)
        except TimeoutError:
            raise TimeoutError(self._missing(timeout_s)) from None
        took = time.perf_counter() - began
        await sub.unsubscribe()
        return Result(total / took, self._latencies, self._ended)


async def connect(url: str) -> Client:
    """A connection of nats-py that reads what comes as the engine's own does."""
    nc = await nats.connect(url.split(","), pending_size=64 * 1024 * 1024)
    nc._ps = WireParser(nc)  # type: ignore[assignment]  # noqa: SLF001
    return nc
