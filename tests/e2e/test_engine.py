"""What the engine promises of a running workflow, seen from outside."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.asking import runs
from tests.e2e.processes import Wpa, ledger
from tests.servers import NatsServer
from wpa.client import Client


@pytest.fixture(scope="module")
def ledger_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ledger") / "ledger.jsonl"


@pytest.fixture(scope="module")
def worker(
    nats_server: NatsServer, tmp_path_factory: pytest.TempPathFactory, ledger_path: Path
) -> Iterator[Wpa]:
    worker = Wpa(
        "worker", "--nats", nats_server.url, "--ack-wait", "3", "--grace", "1",
        log=tmp_path_factory.mktemp("w") / "worker.log",
        env={"WPA_E2E_LEDGER": str(ledger_path)},
    ).wait_ready()  # fmt: skip
    yield worker
    assert worker.stop() == 0


async def run(
    server: NatsServer, tenant: str, steps: list[dict[str, Any]], data: Any = None, **more: Any
) -> Any:
    async with await Client.connect(server.url, tenant) as client:
        await client.deploy({"id": "w", "version": "1", "steps": steps, **more})
        started = await client.start("w", data, execution_id=f"{tenant}-1")
        return await client.result(started.execution_id, timeout_s=40)


async def test_independent_steps_run_side_by_side_up_to_max_parallel_and_by_priority(
    worker: Wpa, nats_server: NatsServer, tenant: str, ledger_path: Path
) -> None:
    steps: list[dict[str, Any]] = [
        {"id": f"s{n}", "uses": "e2e.work", "with": {"seconds": 0.3}} for n in range(6)
    ]
    steps[5]["priority"] = 9
    status = await run(nats_server, tenant, steps, max_parallel=2)
    assert status["status"] == "COMPLETED"
    assert status["duration_ms"] >= 900
    running = most = 0
    lines = ledger(ledger_path, execution=f"{tenant}-1")
    for line in sorted(lines, key=lambda line: line["at"]):
        running += 1 if line["what"] == "start" else -1
        most = max(most, running)
    assert most == 2
    assert next(line["step"] for line in lines if line["what"] == "start") == "s5"


async def test_retries_wait_longer_each_time_and_are_counted(
    worker: Wpa, nats_server: NatsServer, tenant: str
) -> None:
    backoff = {"initial": "100ms", "factor": 2, "jitter": 0}
    step = {
        "id": "a",
        "uses": "core.fail",
        "with": {"until_attempt": 3},
        "retry": {"max_attempts": 5, "backoff": backoff},
    }
    status = await run(nats_server, tenant, [step])
    assert status["status"] == "COMPLETED"
    assert status["steps"][0]["attempt"] == 3
    assert status["duration_ms"] >= 300


@pytest.mark.parametrize("uses", ["e2e.work", "e2e.thread_sleep", "e2e.process_sleep"])
async def test_a_time_out_ends_the_attempt_of_every_kind_of_step(
    worker: Wpa, nats_server: NatsServer, tenant: str, uses: str
) -> None:
    step = {
        "id": "a",
        "uses": uses,
        "with": {"seconds": 15},
        "timeout": "600ms",
        "retry": {"max_attempts": 1},
    }
    status = await run(nats_server, tenant, [step])
    assert (status["status"], status["error"]["type"]) == ("FAILED", "Timeout")
    # A thread can't be stopped: it is left behind after a moment.
    assert status["duration_ms"] < 12_000


async def test_threads_and_processes_leave_the_loop_and_the_heartbeat_alone(
    worker: Wpa, nats_server: NatsServer, tenant: str, ledger_path: Path
) -> None:
    """Longer than the lease, in a thread and in a process: run once each."""
    steps = [
        {"id": "thread", "uses": "e2e.thread_sleep", "with": {"seconds": 5}},
        {"id": "process", "uses": "e2e.process_sleep", "with": {"seconds": 5}},
        {"id": "async", "uses": "e2e.work", "with": {"seconds": 5}},
    ]
    status = await run(nats_server, tenant, steps)
    assert (status["status"], status["epoch"]) == ("COMPLETED", 1)
    assert len(ledger(ledger_path, execution=f"{tenant}-1", what="start")) == 3


async def test_a_compensation_that_gives_up_leaves_failed_with_what_is_undone_and_what_is_not(
    worker: Wpa, nats_server: NatsServer, tenant: str
) -> None:
    undo = {"uses": "e2e.undo"}
    steps = [
        {"id": "a", "uses": "core.noop", "compensate": undo},
        {"id": "b", "uses": "core.noop", "needs": ["a"], "compensate": {**undo, "with": {"fail": True}}},
        {"id": "c", "uses": "core.noop", "needs": ["b"], "compensate": undo},
        {"id": "d", "uses": "core.fail", "needs": ["c"], "with": {"retryable": False, "message": "no luck"}},
    ]
    status = await run(nats_server, tenant, steps)
    assert status["status"] == "FAILED"
    assert (status["undone"], status["not_undone"]) == (["c"], ["b", "a"])
    assert status["error"]["type"] == "CompensationFailed"
    assert "no luck" in status["error"]["message"]
    assert [step["compensation"] and step["compensation"]["status"] for step in status["steps"]] == [
        "pending",
        "failed",
        "completed",
        None,
    ]


async def test_on_error_continue_lets_the_join_see_the_failure(
    worker: Wpa, nats_server: NatsServer, tenant: str
) -> None:
    steps = [
        {
            "id": "a",
            "uses": "core.fail",
            "with": {"retryable": False, "message": "x"},
            "on_error": "continue",
        },
        {
            "id": "b",
            "uses": "core.echo",
            "needs": ["a"],
            "with": {"a": "${steps.a.status}: ${steps.a.error.message}"},
        },
    ]
    status = await run(nats_server, tenant, steps)
    assert status["output"] == {"b": {"a": "failed: x"}}


async def test_variables_conditions_and_skipped_branches(
    worker: Wpa, nats_server: NatsServer, tenant: str
) -> None:
    steps: list[dict[str, Any]] = [
        {
            "id": "a",
            "uses": "core.echo",
            "with": {"n": "${input.n * 2}"},
            "set": {"twice": "${steps.a.output.n}"},
        },
        {"id": "b", "uses": "core.noop", "needs": ["a"], "if": "vars.twice > 100"},
        {
            "id": "c",
            "uses": "core.echo",
            "needs": ["a"],
            "if": "${vars.twice < 100}",
            "with": {"v": "${vars.twice}"},
        },
        {"id": "d", "uses": "core.echo", "needs": ["b", "c"], "with": {"b": "${steps.b.status}"}},
    ]
    status = await run(nats_server, tenant, steps, {"n": 21}, variables={"twice": 0})
    assert status["status"] == "COMPLETED"
    assert [step["status"] for step in status["steps"]] == ["completed", "skipped", "completed", "completed"]
    assert status["steps"][2]["output"] == {"v": 42}
    assert status["output"] == {"d": {"b": "skipped"}}


async def test_an_expression_that_fails_at_run_time_fails_the_step_and_says_where(
    worker: Wpa, nats_server: NatsServer, tenant: str
) -> None:
    steps = [{"id": "a", "uses": "core.echo", "with": {"x": "${input.missing.deep}"}}]
    status = await run(nats_server, tenant, steps)
    assert (status["status"], status["error"]["type"]) == ("FAILED", "ExpressionError")
    assert "$.steps[0].with.x" in status["error"]["message"]


async def test_status_and_history_tell_the_whole_story(
    worker: Wpa, nats_server: NatsServer, tenant: str
) -> None:
    steps = [
        {"id": "a", "uses": "core.echo", "with": {"n": "${input.n}"}},
        {"id": "b", "uses": "e2e.work", "needs": ["a"], "with": {"seconds": 30}},
    ]
    async with await Client.connect(nats_server.url, tenant) as client:
        await client.deploy({"id": "w", "version": "1", "steps": steps})
        await client.start("w", {"n": 7}, execution_id=f"{tenant}-1", metadata={"user_id": "ada"})
        status = await runs(client, f"{tenant}-1", "b")
        assert status["current_steps"] == ["b"]
        assert status["progress"] == {"total": 2, "completed": 1, "failed": 0, "skipped": 0, "percentage": 50}
        first, second = status["steps"]
        assert (first["input"], first["output"], first["attempt"]) == ({"n": 7}, {"n": 7}, 1)
        assert first["started_at"] <= first["finished_at"]
        assert first["duration_ms"] >= 0
        assert (second["status"], second["finished_at"]) == ("running", None)
        assert status["metadata"] == {"user_id": "ada"}
        history = await client.history(f"{tenant}-1")
        assert [event["seq"] for event in history] == [1, 2]
        rows = await client.executions()
        assert [(row["execution_id"], row["status"]) for row in rows] == [(f"{tenant}-1", "RUNNING")]


async def test_versions_are_immutable_and_running_executions_stay_on_theirs(
    worker: Wpa, nats_server: NatsServer, tenant: str
) -> None:
    def document(version: str, answer: str) -> dict[str, Any]:
        step = {"id": "a", "uses": "e2e.work", "with": {"seconds": 1, "answer": answer}}
        return {"id": "w", "version": version, "steps": [step], "output": "${steps.a.output}"}

    async with await Client.connect(nats_server.url, tenant) as client:
        assert (await client.deploy(document("1", "one")))["created"] is True
        assert (await client.deploy(document("1", "one")))["created"] is False
        with pytest.raises(Exception, match="immutable"):
            await client.deploy(document("1", "other"))
        await client.start("w", execution_id=f"{tenant}-1")
        await runs(client, f"{tenant}-1", "a")
        await client.deploy(document("2", "two"))
        await client.start("w", execution_id=f"{tenant}-2")
        await client.start("w", execution_id=f"{tenant}-3", version="1")
        outputs = [(await client.result(f"{tenant}-{n}", timeout_s=30))["output"] for n in (1, 2, 3)]
        assert outputs == ["one", "two", "one"]


async def test_a_plan_of_many_steps(worker: Wpa, nats_server: NatsServer, tenant: str) -> None:
    steps = [
        {"id": f"s{n}", "uses": "core.noop", **({"needs": [f"s{n - 1}"]} if n else {})} for n in range(300)
    ]
    status = await run(nats_server, tenant, steps)
    assert (status["status"], status["events"]) == ("COMPLETED", 302)


async def test_a_large_input_travels_by_reference_and_is_whole_for_the_steps(
    worker: Wpa, nats_server: NatsServer, tenant: str
) -> None:
    steps = [{"id": "a", "uses": "core.echo", "with": {"n": "${size(input.text)}", "text": "${input.text}"}}]
    status = await run(nats_server, tenant, steps, {"text": "x" * 500_000}, output="${steps.a.output.n}")
    assert status["output"] == 500_000
    assert status["input"]["$blob"]["size"] > 500_000
    assert status["steps"][0]["input"]["text"] == {"$omitted": {"size": 500_002}}
