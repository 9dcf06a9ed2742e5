"""Kill every process at any moment, start it again: each execution ends as if nothing had happened."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from tests.e2e.processes import Wpa, ledger
from tests.servers import NatsServer
from wpa.client import Client
from wpa.errors import TaskRejected, Unavailable
from wpa.model.tasks import AnswerPayload, AnswerTask, SignalPayload, SignalTask, TaskMetadata

Start = Callable[..., Wpa]

KINDS: dict[str, dict[str, Any]] = {
    "sleeper": {
        "steps": [
            {"id": "a", "uses": "e2e.work", "with": {"seconds": 0.2}},
            {"id": "nap", "uses": "core.sleep", "with": {"for": "2500ms"}, "needs": ["a"]},
            {"id": "b", "uses": "e2e.work", "with": {"answer": 1}, "needs": ["nap"]},
        ],
        "output": "${steps.b.output}",
    },
    "waiter": {
        "steps": [
            {"id": "go", "uses": "core.wait", "with": {"signal": "go"}},
            {"id": "b", "uses": "e2e.work", "with": {"answer": "${steps.go.output.n}"}, "needs": ["go"]},
        ],
        "output": "${steps.b.output}",
    },
    "asker": {
        "steps": [
            {"id": "ask", "uses": "core.approval", "with": {"users": ["ana"]}},
            {"id": "b", "uses": "e2e.work", "with": {"answer": 3}, "needs": ["ask"]},
        ],
        "output": "${steps.b.output}",
    },
    "parent": {
        "steps": [{"id": "sub", "uses": "core.workflow", "with": {"workflow": "child"}}],
        "output": "${steps.sub.output}",
    },
    "child": {
        "steps": [
            {"id": "x", "uses": "e2e.work", "with": {"seconds": 0.3}},
            {"id": "nap", "uses": "core.sleep", "with": {"for": "2100ms"}, "needs": ["x"]},
            {"id": "y", "uses": "e2e.work", "with": {"answer": 4}, "needs": ["nap"]},
        ],
        "output": "${steps.y.output}",
    },
    "many": {
        "steps": [
            {
                "id": "each",
                "uses": "e2e.work",
                "foreach": {"in": "${input.items}", "concurrency": 4},
                "with": {"seconds": 0.05, "answer": "${item}"},
            }
        ],
        "output": "${steps.each.output}",
    },
    "loser": {
        "steps": [
            {"id": "a", "uses": "e2e.work", "compensate": {"uses": "e2e.undo"}},
            {"id": "nap", "uses": "core.sleep", "with": {"for": "2200ms"}, "needs": ["a"]},
            {"id": "b", "uses": "e2e.work", "needs": ["nap"], "compensate": {"uses": "e2e.undo"}},
            {"id": "c", "uses": "core.fail", "with": {"retryable": False}, "needs": ["b"]},
        ]
    },
}
ROUNDS = 4
STARTED = ("sleeper", "waiter", "asker", "parent", "many", "loser")
OUTPUTS = {"sleeper": 1, "waiter": 7, "asker": 3, "parent": 4, "many": list(range(12))}


async def patiently(what: Callable[[], Any]) -> Any:
    """Do it, though nobody may be there to do it for a while."""
    deadline = time.monotonic() + 30
    while True:
        try:
            return await what()
        except (Unavailable, TaskRejected):
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.2)


async def send(client: Client, task: msgspec.Struct) -> None:
    await client.publish_start(msgspec.to_builtins(task))


async def tell(client: Client, number: int) -> None:
    """What the waiting ones wait for, told more than once: it counts once."""
    for _ in range(2):
        payload = SignalPayload(signal="go", payload={"n": 7}, id="one")
        await send(
            client, SignalTask(type="workflow_signal", execution_id=f"waiter-{number}", payload=payload)
        )
    metadata = TaskMetadata(user_id="ana")
    answer = AnswerPayload(step="ask", approved=True)
    await send(
        client,
        AnswerTask(type="workflow_answer", execution_id=f"asker-{number}", metadata=metadata, payload=answer),
    )


async def test_every_process_killed_at_any_moment(
    server: NatsServer, start_worker: Start, client: Client, ledger_file: Path
) -> None:
    chance = random.Random(20261121)
    workers = [start_worker(ack_wait=1.0), start_worker(ack_wait=1.0)]
    for name, document in KINDS.items():
        await patiently(lambda n=name, d=document: client.deploy({"id": n, "version": "1", **d}))
    for number in range(ROUNDS):
        for name in STARTED:
            execution = f"{name}-{number}"
            data = {"items": list(range(12))} if name == "many" else {}
            await patiently(lambda n=name, e=execution, d=data: client.start(n, d, execution_id=e))
        await asyncio.sleep(chance.uniform(0.1, 0.8))
        victim = chance.randrange(3)
        if victim == 2:
            await asyncio.to_thread(server.kill)
            await asyncio.sleep(chance.uniform(0, 0.5))
            await asyncio.to_thread(server.restart)
        else:
            workers[victim].kill()
            await asyncio.sleep(chance.uniform(0, 0.5))
            workers[victim] = await asyncio.to_thread(start_worker, ack_wait=1.0)
        await asyncio.sleep(chance.uniform(0.5, 1.5))
        await patiently(lambda n=number: tell(client, n))
    for number in range(ROUNDS):
        for name in STARTED:
            execution = f"{name}-{number}"
            status = await patiently(lambda e=execution: client.result(e, timeout_s=40))
            expected = "ROLLED_BACK" if name == "loser" else "COMPLETED"
            assert status["status"] == expected, (execution, status["error"])
            assert status["output"] == OUTPUTS.get(name)
    for number in range(ROUNDS):
        for name in STARTED:
            await check_journal(client, f"{name}-{number}")
            assert undone(ledger_file, f"{name}-{number}") == (["b", "a"] if name == "loser" else [])


async def check_journal(client: Client, execution: str) -> None:
    """One chain; each slot is settled once."""
    events = await client.history(execution)
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    settled = Counter(
        event["data"]["slot"] for event in events if event["event"] == "workflow_step_completed"
    )
    assert set(settled.values()) <= {1}, (execution, settled)


def undone(path: Path, execution: str) -> list[str]:
    """What was undone, in order; an undoing that was cut short by a kill may have run twice."""
    steps = [line["step"] for line in ledger(path, execution=execution, what="undo")]
    return list(dict.fromkeys(steps))
