"""Workers die, servers die; executions don't."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

from tests.e2e.conftest import ACK_WAIT_S
from tests.e2e.processes import Wpa, ledger, run_wpa
from tests.servers import NatsServer
from tests.waiting import wait_for
from wpa.client import Client

Start = Callable[..., Wpa]

TAKEN_OVER_WITHIN_S = ACK_WAIT_S + 8
"""A lease's time, and what a busy machine takes to start a worker; the lease of a worker by default is longer."""
STOPS_WITHIN_S = 20


def sequence(*steps: dict[str, object]) -> dict[str, object]:
    linked = []
    for index, step in enumerate(steps):
        needs = {"needs": [steps[index - 1]["id"]]} if index else {}
        linked.append({"uses": "e2e.work", **step, **needs})
    return {"id": "crash", "version": "1", "steps": linked}


async def test_a_killed_worker_loses_nothing_and_completed_steps_do_not_run_again(
    start_worker: Start, client: Client, ledger_file: Path, tmp_path: Path
) -> None:
    first = start_worker()
    gate = tmp_path / "gate"
    await client.deploy(
        sequence({"id": "a"}, {"id": "b", "uses": "e2e.gate", "with": {"path": str(gate)}}, {"id": "c"})
    )
    started = await client.start("crash", execution_id="x1")
    await asyncio.to_thread(wait_for, lambda: ledger(ledger_file, step="b", what="start"))
    first.kill()
    died = time.monotonic()
    start_worker()
    gate.touch()
    status = await client.result(started.execution_id, timeout_s=30)
    assert time.monotonic() - died < TAKEN_OVER_WITHIN_S
    assert status["status"] == "COMPLETED"
    assert status["epoch"] == 2
    assert [line["key"] for line in ledger(ledger_file, what="start")] == [
        "x1:a:1",
        "x1:b:1",
        "x1:b:1",
        "x1:c:1",
    ]
    events = [event["event"] for event in await client.history("x1")]
    assert events.count("workflow_recovered") == 1
    assert events.count("workflow_step_completed") == 3


async def test_a_worker_beside_it_takes_over_within_ack_wait(
    start_worker: Start, client: Client, ledger_file: Path, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    workers = [start_worker(), start_worker()]
    await client.deploy(sequence({"id": "b", "uses": "e2e.gate", "with": {"path": str(gate)}}))
    await client.start("crash", execution_id="x1")
    line = (await asyncio.to_thread(wait_for, lambda: ledger(ledger_file, step="b")))[0]
    victim = next(worker for worker in workers if worker.process.pid == line["pid"])
    victim.kill()
    died = time.monotonic()
    await asyncio.to_thread(wait_for, lambda: len(ledger(ledger_file, step="b", what="start")) == 2)
    assert time.monotonic() - died < TAKEN_OVER_WITHIN_S
    gate.touch()
    assert (await client.result("x1", timeout_s=30))["status"] == "COMPLETED"


async def test_a_step_that_kills_its_worker_runs_again_elsewhere(
    start_worker: Start, client: Client, ledger_file: Path, tmp_path: Path
) -> None:
    start_worker()
    start_worker()
    await client.deploy(
        sequence({"id": "bad", "uses": "e2e.die_once", "with": {"marker": str(tmp_path / "m")}})
    )
    await client.start("crash", execution_id="x1")
    status = await client.result("x1", timeout_s=30)
    assert status["output"] == {"bad": "survived"}
    assert status["steps"][0]["attempt"] == 2


async def test_at_most_once_is_not_run_again_after_a_crash(
    start_worker: Start, client: Client, ledger_file: Path, tmp_path: Path
) -> None:
    start_worker()
    start_worker()
    step = {
        "id": "pay",
        "uses": "e2e.die_once",
        "with": {"marker": str(tmp_path / "m")},
        "at_most_once": True,
    }
    await client.deploy(sequence(step))
    await client.start("crash", execution_id="x1")
    status = await client.result("x1", timeout_s=30)
    assert (status["status"], status["error"]["type"]) == ("FAILED", "OutcomeUnknown")
    assert len(ledger(ledger_file, step="pay")) == 1


async def test_a_worker_killed_while_compensating_goes_on_undoing(
    start_worker: Start, client: Client, ledger_file: Path, tmp_path: Path
) -> None:
    start_worker()
    start_worker()
    undo = {"uses": "e2e.undo"}
    deadly = {"uses": "e2e.die_once", "with": {"marker": str(tmp_path / "m")}}
    await client.deploy(
        sequence(
            {"id": "a", "compensate": undo},
            {"id": "b", "compensate": deadly},
            {"id": "c", "compensate": undo},
            {"id": "d", "uses": "core.fail", "with": {"retryable": False}},
        )
    )
    await client.start("crash", execution_id="x1")
    status = await client.result("x1", timeout_s=30)
    assert (status["status"], status["undone"]) == ("ROLLED_BACK", ["c", "b", "a"])
    assert len(ledger(ledger_file, what="undo", step="c")) == 1


async def test_sigterm_lets_short_work_end_and_hands_long_work_back(
    start_worker: Start, client: Client, ledger_file: Path, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    worker = start_worker("--grace", "3")
    await client.deploy(sequence({"id": "short", "with": {"seconds": 0.3}}))
    long = sequence({"id": "long", "uses": "e2e.gate", "with": {"path": str(gate)}})
    await client.deploy({**long, "id": "long"})
    await client.start("crash", execution_id="short")
    await client.start("long", execution_id="long")
    await asyncio.to_thread(wait_for, lambda: len(ledger(ledger_file, what="start")) == 2)
    assert await asyncio.to_thread(worker.stop, within_s=STOPS_WITHIN_S) == 0
    start_worker()
    assert (await client.result("short", timeout_s=30))["epoch"] == 1
    gate.touch()
    handed_back = await client.result("long", timeout_s=30)
    assert (handed_back["status"], handed_back["epoch"]) == ("COMPLETED", 2)


async def test_a_killed_server_loses_nothing_under_load(
    start_worker: Start, client: Client, server: NatsServer, ledger_file: Path
) -> None:
    start_worker()
    await client.deploy(sequence({"id": "a", "with": {"seconds": 0.05}}, {"id": "b"}, {"id": "c"}))
    started = [await client.start("crash", execution_id=f"x{number}") for number in range(60)]
    await asyncio.to_thread(server.restart)
    results = await asyncio.gather(*(client.result(start.execution_id, timeout_s=60) for start in started))
    assert {result["status"] for result in results} == {"COMPLETED"}
    for result in results:
        events = [event["event"] for event in await client.history(result["execution_id"])]
        assert events.count("workflow_step_completed") == 3


async def test_a_step_that_ignores_its_cancellation_does_not_keep_its_worker(
    start_worker: Start, client: Client, ledger_file: Path
) -> None:
    worker = start_worker("--grace", "1")
    await client.deploy(sequence({"id": "stubborn", "uses": "e2e.stubborn"}))
    await client.start("crash", execution_id="x1")
    await asyncio.to_thread(wait_for, lambda: ledger(ledger_file, what="start"))
    await asyncio.to_thread(worker.stop, within_s=STOPS_WITHIN_S)
    start_worker()
    await asyncio.to_thread(wait_for, lambda: len(ledger(ledger_file, what="start")) == 2)


async def test_a_cancel_does_not_wait_for_a_step_that_ignores_it(
    start_worker: Start, client: Client, ledger_file: Path
) -> None:
    worker = start_worker()
    await client.deploy(sequence({"id": "stubborn", "uses": "e2e.stubborn"}))
    await client.start("crash", execution_id="x1")
    await asyncio.to_thread(wait_for, lambda: ledger(ledger_file, what="start"))
    await client.cancel("x1")
    assert (await client.result("x1", timeout_s=30))["status"] == "CANCELLED"
    await client.deploy({**sequence({"id": "a"}), "id": "well"})
    await client.start("well", execution_id="x2")
    assert (await client.result("x2", timeout_s=30))["status"] == "COMPLETED"  # the worker is well
    await asyncio.to_thread(worker.stop, within_s=STOPS_WITHIN_S)
    assert len(ledger(ledger_file, what="start", step="stubborn")) == 1


def test_a_worker_without_a_server_says_so_and_leaves() -> None:
    done = run_wpa("worker", "--nats", "nats://127.0.0.1:1")
    assert done.returncode == 3
    assert "no NATS server answers at nats://127.0.0.1:1" in done.stderr
