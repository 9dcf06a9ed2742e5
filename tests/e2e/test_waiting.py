"""Executions that wait: nothing is held while they do, and nothing is lost or early when they go on."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from tests.e2e.asking import comes_to, status_when
from tests.e2e.processes import Wpa
from tests.servers import NatsServer
from wpa.client import Client
from wpa.model.tasks import SignalPayload, SignalTask
from wpa.model.times import parse_ms

LATE_MS = 10_000
"""Of a server and a worker that have other things to do; on a quiet machine it is a tenth of a second."""

pytestmark = pytest.mark.usefixtures("worker")


async def deploy(client: Client, steps: list[dict[str, Any]], workflow: str = "w", **more: Any) -> None:
    await client.deploy({"id": workflow, "version": "1", "steps": steps, **more})


async def send(client: Client, task: msgspec.Struct) -> None:
    """As any NATS client could."""
    await client.publish_start(msgspec.to_builtins(task))


@pytest.fixture
async def client(nats_server: NatsServer, tenant: str) -> AsyncIterator[Client]:
    async with await Client.connect(nats_server.url, tenant) as client:
        yield client


async def test_a_sleep_is_never_early_and_not_much_late(client: Client, worker: Wpa) -> None:
    await deploy(
        client,
        [
            {"id": "nap", "uses": "core.sleep", "with": {"for": "3s"}},
            {"id": "after", "uses": "core.echo", "with": {"a": 1}, "needs": ["nap"]},
        ],
    )
    began = time.monotonic()
    await client.start("w", {}, execution_id="sleeper")
    await comes_to(client, "sleeper", "WAITING")
    done = await client.result("sleeper", timeout_s=30)
    assert done["status"] == "COMPLETED"
    assert time.monotonic() - began >= 3.0
    nap = done["steps"][0]
    assert 3000 <= parse_ms(nap["finished_at"]) - parse_ms(nap["started_at"]) < 3000 + LATE_MS


async def test_a_long_backoff_is_waited_for_by_the_server(client: Client) -> None:
    retry = {"max_attempts": 3, "backoff": {"initial": "3s", "jitter": 0}}
    await deploy(client, [{"id": "a", "uses": "core.fail", "with": {"until_attempt": 2}, "retry": retry}])
    await client.start("w", {}, execution_id="retrier")
    status = await comes_to(client, "retrier", "WAITING")
    assert status["steps"][0]["status"] == "retrying"
    done = await client.result("retrier", timeout_s=30)
    assert (done["status"], done["steps"][0]["attempt"]) == ("COMPLETED", 2)


async def test_a_signal_wakes_the_one_that_waits_for_it(client: Client) -> None:
    await deploy(
        client,
        [{"id": "go", "uses": "core.wait", "with": {"signal": "go"}}],
        output="${steps.go.output}",
    )
    await client.start("w", {}, execution_id="waiter")
    await comes_to(client, "waiter", "WAITING")
    task = SignalTask(
        type="workflow_signal", execution_id="waiter", payload=SignalPayload(signal="go", payload={"n": 7})
    )
    await send(client, task)
    done = await client.result("waiter", timeout_s=30)
    assert (done["status"], done["output"]) == ("COMPLETED", {"n": 7})


async def test_a_parent_gets_its_childs_output_and_they_know_each_other(client: Client) -> None:
    await deploy(client, [{"id": "a", "uses": "core.echo", "with": {"x": "${input.x}"}}], "child")
    child = {"workflow": "child", "input": {"x": 5}}
    await deploy(
        client,
        [{"id": "sub", "uses": "core.workflow", "with": child}],
        "parent",
        output="${steps.sub.output}",
    )
    await client.start("parent", {}, execution_id="p1")
    done = await client.result("p1", timeout_s=30)
    assert (done["status"], done["output"]) == ("COMPLETED", {"a": {"x": 5}})
    assert (await client.status("p1-sub"))["status"] == "COMPLETED"


async def test_an_execution_ends_at_its_deadline(client: Client) -> None:
    await deploy(client, [{"id": "go", "uses": "core.wait", "with": {"signal": "never"}}], timeout="3s")
    await client.start("w", {}, execution_id="late")
    done = await client.result("late", timeout_s=30)
    assert (done["status"], done["error"]["type"]) == ("FAILED", "DeadlineExceeded")


async def test_a_workflow_can_undo_what_another_did(client: Client) -> None:
    await deploy(client, [{"id": "a", "uses": "core.echo", "with": {"x": "${input.x}"}}], "undo-it")
    undo = {"uses": "core.workflow", "with": {"workflow": "undo-it", "input": {"x": "${steps.a.output.x}"}}}
    await deploy(
        client,
        [
            {"id": "a", "uses": "core.echo", "with": {"x": 5}, "compensate": undo},
            {"id": "b", "uses": "core.fail", "with": {"retryable": False}, "needs": ["a"]},
        ],
    )
    await client.start("w", {}, execution_id="undone")
    done = await client.result("undone", timeout_s=30)
    assert (done["status"], done["undone"]) == ("ROLLED_BACK", ["a"])
    assert (await client.status("undone-a-undo"))["output"] == {"a": {"x": 5}}


async def test_the_status_shows_all_turns_of_a_step_as_one(client: Client) -> None:
    item = {
        "id": "each",
        "foreach": {"in": "input.names", "as": "name", "concurrency": 3, "on_error": "continue"},
        "uses": "core.wait",
        "with": {"signal": "${name}", "timeout": "1h"},
    }
    await deploy(client, [item])
    await client.start("w", {"names": ["a", "b", "c", "d"]}, execution_id="turns")
    await comes_to(client, "turns", "WAITING")
    for name in "ab":
        await client.signal("turns", name, name.upper())
    status = await status_when(client, "turns", lambda found: found["steps"][0]["turns"]["done"] == 2)
    [step] = status["steps"]
    assert step["turns"] == {"done": 2, "failed": 0, "total": 4}
    assert (step["status"], step["output"], status["progress"]["percentage"]) == ("waiting", None, 50)
    for name in "cd":
        await client.signal("turns", name, name.upper())
    done = await client.result("turns", timeout_s=30)
    [step] = done["steps"]
    assert step["turns"] == {"done": 4, "failed": 0, "total": 4}
    assert (step["status"], step["output"]) == ("completed", ["A", "B", "C", "D"])
    assert step["finished_at"] == max(
        event["timestamp"] for event in await client.history("turns") if event["data"].get("slot")
    )
