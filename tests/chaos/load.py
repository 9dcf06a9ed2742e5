"""The executions that chaos is let loose on: what they are, how they are started, and how they have to end.

Each uses another part of the engine, and all leave lines in the ledger of side effects. What a client asks
for is asked until somebody says yes, as a client does that was cut off: so everything may arrive twice.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

from tests.e2e.processes import ledger
from wpa.client import Client
from wpa.errors import TaskRejected, Unavailable

T = TypeVar("T")

WORK = {"uses": "e2e.work", "compensate": {"uses": "e2e.undo"}}
NAP = {"uses": "core.sleep", "with": {"for": "2100ms"}}
"""Longer than what a worker waits for itself: it comes to rest."""

PLANS: dict[str, dict[str, Any]] = {
    "chain": {
        "steps": [
            {"id": "a", **WORK},
            {"id": "b", **WORK, "needs": ["a"]},
            {"id": "c", **WORK, "needs": ["b"]},
        ]
    },
    "fan": {
        "steps": [
            {"id": "a", "uses": "e2e.work"},
            *(
                {"id": f"b{n}", "uses": "e2e.work", "with": {"seconds": 0.05}, "needs": ["a"]}
                for n in range(5)
            ),
            {"id": "z", "uses": "e2e.work", "needs": [f"b{n}" for n in range(5)]},
        ]
    },
    "loser": {
        "steps": [
            {"id": "a", **WORK},
            {"id": "b", **WORK, "needs": ["a"]},
            {"id": "c", "uses": "core.fail", "with": {"retryable": False}, "needs": ["b"]},
        ]
    },
    "sleeper": {
        "steps": [
            {"id": "a", **WORK},
            {"id": "nap", **NAP, "needs": ["a"]},
            {"id": "b", **WORK, "needs": ["nap"]},
        ]
    },
    "waiter": {
        "steps": [
            {"id": "go", "uses": "core.wait", "with": {"signal": "go"}},
            {"id": "b", "uses": "e2e.work", "with": {"answer": "${steps.go.output}"}, "needs": ["go"]},
        ]
    },
    "small": {"steps": [{"id": "x", "uses": "e2e.work"}, {"id": "nap", **NAP, "needs": ["x"]}]},
    "parent": {
        "steps": [
            {"id": "sub", "uses": "core.workflow", "with": {"workflow": "small"}},
            {"id": "z", "uses": "e2e.work", "needs": ["sub"]},
        ]
    },
    "each": {
        "steps": [
            {
                "id": "each",
                "uses": "e2e.work",
                "foreach": {"in": "${[1, 2, 3, 4, 5, 6]}", "concurrency": 3},
                "with": {"seconds": 0.03, "answer": "${item}"},
            }
        ]
    },
    "flaky": {
        "steps": [
            {
                "id": "a",
                "uses": "core.fail",
                "with": {"until_attempt": 2},
                "retry": {"max_attempts": 3, "backoff": {"initial": "2100ms", "jitter": 0}},
            },
            {"id": "b", "uses": "e2e.work", "needs": ["a"]},
        ]
    },
}
KINDS = tuple(name for name in PLANS if name != "small")
LOSERS = frozenset({"loser"})


async def patiently(what: Callable[[], Awaitable[T]], within_s: float = 60.0) -> T:
    """Ask until somebody answers."""
    deadline = time.monotonic() + within_s
    while True:
        try:
            return await what()
        except (Unavailable, TaskRejected):
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.2)


async def deploy(client: Client) -> None:
    for name, document in PLANS.items():
        await patiently(lambda n=name, d=document: client.deploy({"id": n, "version": "1", **d}))


async def start(client: Client, kind: str, execution: str) -> None:
    await patiently(lambda: client.start(kind, {}, execution_id=execution))
    if kind == "waiter":
        await patiently(lambda: client.signal(execution, "go", 7, id="one"))


async def check_end(client: Client, kind: str, execution: str, path: Path, within_s: float = 60.0) -> None:
    """Raise AssertionError for an execution that did not end as if nothing had happened."""
    found = await client.result(execution, timeout_s=within_s)
    expected = "ROLLED_BACK" if kind in LOSERS else "COMPLETED"
    assert found["status"] == expected, (execution, found["status"], found["error"])
    events = await patiently(lambda: client.history(execution))
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1)), execution
    settled = Counter(
        (event["event"], event["data"]["slot"])
        for event in events
        if event["event"] in ("workflow_step_completed", "workflow_step_compensated")
    )
    assert set(settled.values()) <= {1}, (execution, settled)
    lines = ledger(path, execution=execution)
    for step in {line["step"] for line in lines if line["what"] == "start" and kind != "each"}:
        keys = {line["key"] for line in lines if line["step"] == step and line["what"] == "start"}
        assert len(keys) == 1, (execution, step, keys)
    undone = list(dict.fromkeys(line["step"] for line in lines if line["what"] == "undo"))
    assert undone == (["b", "a"] if kind in LOSERS else []), (execution, undone)
