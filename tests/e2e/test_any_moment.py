"""Kill every process at any moment, start it again: each execution ends as if nothing had happened.

The moments follow from a seed, which is printed; ``ANY_MOMENT_SEED=4711`` takes the same ones again.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import time
from collections import Counter
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
import wpa_orders

from tests.e2e.cases import CASES, CHARGES, FLOWS, PLANS, act, begin, charges
from tests.e2e.processes import EXAMPLES, Wpa, ledger
from tests.servers import NatsServer
from tests.waiting import patiently
from wpa.client import Client
from wpa.model.tasks import AnswerPayload, AnswerTask, SignalPayload, SignalTask, TaskMetadata

Start = Callable[..., Wpa]

ACK_WAIT_S = 1.5

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


@pytest.fixture
def chance() -> random.Random:
    """When, and which process."""
    seed = int(os.environ.get("ANY_MOMENT_SEED") or time.time_ns() % 1_000_000)
    print(f"ANY_MOMENT_SEED={seed}")
    return random.Random(seed)


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
    server: NatsServer, start_worker: Start, client: Client, ledger_file: Path, chance: random.Random
) -> None:
    workers = [start_worker(ack_wait=ACK_WAIT_S), start_worker(ack_wait=ACK_WAIT_S)]
    for name, document in KINDS.items():
        await patiently(lambda n=name, d=document: client.deploy({"id": n, "version": "1", **d}))
    for number in range(ROUNDS):
        for name in STARTED:
            execution = f"{name}-{number}"
            data = {"items": list(range(12))} if name == "many" else {}
            await patiently(lambda n=name, e=execution, d=data: client.start(n, d, execution_id=e))
        await asyncio.sleep(chance.uniform(0.1, 0.8))
        await kill_one(chance, server, workers, lambda: start_worker(ack_wait=ACK_WAIT_S))
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


async def kill_one(
    chance: random.Random, server: NatsServer, workers: list[Wpa], new_worker: Callable[[], Wpa]
) -> None:
    """One of the processes dies, and is started again after a while."""
    victim = chance.randrange(len(workers) + 1)
    if victim == len(workers):
        await asyncio.to_thread(server.kill)
        await asyncio.sleep(chance.uniform(0, 0.5))
        await asyncio.to_thread(server.start)
    else:
        workers[victim].kill()
        await asyncio.sleep(chance.uniform(0, 0.5))
        workers[victim] = await asyncio.to_thread(new_worker)


async def check_journal(client: Client, execution: str) -> None:
    """One chain; each slot is settled once in each run."""
    events = await client.history(execution)
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    run, settled = 1, Counter[tuple[int, str]]()
    for event in events:
        if event["event"] == "workflow_continued":
            run += 1
        elif event["event"] == "workflow_step_completed":
            settled[run, event["data"]["slot"]] += 1
    assert set(settled.values()) <= {1}, (execution, settled)


def undone(path: Path, execution: str) -> list[str]:
    """What was undone, in order; an undoing that was cut short by a kill may have run twice."""
    steps = [line["step"] for line in ledger(path, execution=execution, what="undo")]
    return list(dict.fromkeys(steps))


# -- the examples ----------------------------------------------------------------------------

KILLS_OF_EACH = 3
EVERY_SECOND = {"every": "1s", "overlap": "allow", "catch_up": "all", "input": {"report": "sales"}}


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "shop.db"
    wpa_orders.seed(path)
    monkeypatch.setenv("WPA_SHOP_DB", str(path))
    return path


async def test_every_example_while_everything_is_killed(
    server: NatsServer, start_worker: Start, client: Client, shop: Path, chance: random.Random
) -> None:
    flows = [f"--flows={path}" for path in FLOWS]

    def new_worker() -> Wpa:
        return start_worker("--queue", "gpu", *flows, ack_wait=ACK_WAIT_S)

    workers = [new_worker()]
    for path in PLANS:
        await client.deploy(json.loads(path.read_text()))
    nightly = json.loads((EXAMPLES / "nightly.json").read_text())
    await client.deploy({**nightly, "id": "ticks", "schedule": EVERY_SECOND})

    async def run(name: str) -> None:
        await asyncio.sleep(chance.uniform(0, 2))
        await begin(client, name, CASES[name])
        await act(client, name, CASES[name])

    running = [asyncio.create_task(run(name)) for name in CASES]
    for _ in range(KILLS_OF_EACH):
        await asyncio.sleep(chance.uniform(0, 0.5))
        workers[0].kill()
        await asyncio.sleep(chance.uniform(0, 0.5))
        await asyncio.to_thread(server.kill)
        await asyncio.sleep(chance.uniform(0, 0.5))
        await asyncio.to_thread(server.start)
        workers[0] = await asyncio.to_thread(new_worker)
        await asyncio.sleep(chance.uniform(0, 1))
    await asyncio.gather(*running)
    for name, case in CASES.items():
        ended = await client.result(name, timeout_s=40)
        assert (name, ended["status"], ended["output"]) == (name, case.status, case.output), ended["error"]
        await check_journal(client, name)
    for order, booked in CHARGES.items():
        assert (order, charges(shop, order)) == (order, booked)
    await check_ticks(client)


async def check_ticks(client: Client) -> None:
    """One execution for each second, whoever was away."""
    await patiently(lambda: client.delete_schedule("ticks"))
    rows = await client.executions(limit=1000)
    ticks = sorted(row["execution_id"] for row in rows if row["execution_id"].startswith("ticks-"))
    moments = [datetime.strptime(tick, "ticks-%Y%m%dT%H%M%SZ") for tick in ticks]  # noqa: DTZ007
    assert len(moments) >= KILLS_OF_EACH
    assert moments == [moments[0] + timedelta(seconds=number) for number in range(len(moments))]
    for tick in ticks:
        assert (await client.result(tick, timeout_s=30))["status"] == "COMPLETED"
