"""Reruns and versions; children, queues, schedules and workers as they are seen."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.e2e.asking import GO, comes_to, plan, refused, status_when
from tests.e2e.processes import Wpa, invoke_wpa
from tests.servers import NatsServer
from wpa.client import Client


@pytest.fixture
async def client(nats_server: NatsServer, tenant: str, worker: Wpa) -> AsyncIterator[Client]:
    async with await Client.connect(nats_server.url, tenant) as client:
        yield client


# -- versions and reruns ---------------------------------------------------------------------


async def test_a_rerun_takes_over_what_was_settled_before_the_step(
    client: Client, nats_server: NatsServer
) -> None:
    await client.deploy(
        plan(
            {"id": "a", "uses": "e2e.work", "with": {"answer": "${input.n}"}},
            {"id": "b", "uses": "core.echo", "with": {"a": "${steps.a.output}", "n": "${input.n}"}},
        )
    )
    await client.start("w", {"n": 1}, execution_id="old")
    await client.result("old", timeout_s=30)
    again = await client.rerun("old", from_step="b", input={"n": 2}, new_execution_id="new")
    assert (again.execution_id, again.version, again.forked_from, again.duplicate) == (
        "new",
        "1",
        "old",
        False,
    )
    done = await client.result("new", timeout_s=30)
    assert (done["status"], done["forked_from"]) == ("COMPLETED", "old")
    assert done["steps"][1]["output"] == {"a": 1, "n": 2}
    assert (await client.rerun("old", from_step="b", input={"n": 2}, new_execution_id="new")).duplicate
    whole = await client.rerun("old")
    assert (await client.result(whole.execution_id, timeout_s=30))["steps"][0]["output"] == 1
    for asked, code in [
        (client.rerun("old", from_step="z"), "unknown_step"),
        (client.rerun("nobody"), "unknown_execution"),
        (client.rerun("old", new_execution_id="old"), "bad_request"),
        (client.rerun("old", new_execution_id="a b"), "invalid_name"),
        (client.rerun("old", from_step="b", new_execution_id="new"), "conflict"),
    ]:
        assert (await refused(asked)).code == code


async def test_a_waiting_execution_moves_to_a_version_that_fits(client: Client) -> None:
    first, last = {"id": "a", "uses": "core.noop"}, {"id": "c", "uses": "core.echo", "with": {"v": 1}}
    await client.deploy(plan(first, {"id": "b", **GO}, last))
    for execution in ("x", "y"):
        await client.start("w", execution_id=execution)
        await comes_to(client, execution, "WAITING")
    await client.deploy(plan(first, {"id": "b", **GO}, {**last, "with": {"v": 2}}, version="2"))
    await client.deploy(plan({"id": "z", "uses": "core.noop"}, {"id": "b", **GO}, version="3"))
    assert (await client.migrate("x", "2")).queued
    error = await refused(client.migrate("y", "3"))
    assert error.code == "does_not_fit"
    assert "a (core.noop)" in error.message
    assert (await refused(client.migrate("y", "9"))).code == "unknown_version"
    assert (await refused(client.migrate("y", ""))).code == "bad_request"
    await status_when(client, "x", lambda found: found["version"] == "2" and found["at_rest"])
    assert (await client.migrate("x", "2")).duplicate
    for execution in ("x", "y"):
        await client.signal(execution, "go")
    outputs = [(await client.result(one, timeout_s=30))["steps"][2]["output"] for one in ("x", "y")]
    assert outputs == [{"v": 2}, {"v": 1}]


@pytest.mark.parametrize(
    ("step", "why"),
    [
        ({"uses": "core.echo", "with": {"x": "${input.none}"}}, "fails by its definition, and would again"),
        ({"uses": "core.fail", "at_most_once": True}, "at_most_once, and was begun"),
    ],
)
async def test_what_would_fail_again_or_may_run_once_only_is_not_tried_again(
    client: Client, step: dict[str, Any], why: str
) -> None:
    await client.deploy(plan({"id": "a", **step}))
    await client.start("w", {}, execution_id="x")
    assert (await client.result("x", timeout_s=30))["status"] == "FAILED"
    error = await refused(client.retry("x"))
    assert error.code == "not_retryable"
    assert why in error.message


# -- what is seen ----------------------------------------------------------------------------


async def test_parent_and_child_know_each_other(client: Client) -> None:
    await client.deploy({**plan({"id": "inner", **GO}), "id": "child"})
    await client.deploy(plan({"id": "sub", "uses": "core.workflow", "with": {"workflow": "child"}}))
    await client.start("w", execution_id="x")
    parent = await comes_to(client, "x", "WAITING")
    (child,) = parent["children"]
    assert (child["slot"], child["status"]) == ("sub", "waiting")
    inner = await comes_to(client, child["execution_id"], "WAITING")
    assert inner["parent"] == {"execution_id": "x", "slot": "sub"}
    rows = {row["execution_id"]: row for row in await client.executions(status="WAITING")}
    assert rows["x"]["waiting_for"][0]["name"] == child["execution_id"]
    assert rows[child["execution_id"]]["waiting_for"] == [
        {"slot": "inner", "step": "inner", "kind": "signal", "name": "go"}
    ]
    await client.signal(child["execution_id"], "go")
    assert (await client.result("x", timeout_s=30))["children"][0]["status"] == "completed"


async def test_workers_say_who_they_are(client: Client, worker: Wpa) -> None:
    rows = await client.workers()
    assert worker.process.pid in [row["pid"] for row in rows]
    assert all("core.echo" in row["step_types"] and row["queues"] == [] for row in rows)


async def test_a_step_that_no_worker_serves_is_visibly_waited_for(client: Client) -> None:
    await client.deploy(plan({"id": "train", "uses": "core.noop", "queue": "gpu"}))
    await client.start("w", execution_id="x")
    found = await comes_to(client, "x", "WAITING")
    (slot,) = found["waiting_for"]
    assert (slot["kind"], slot["name"]) == ("remote", "gpu")
    (step,) = found["steps"]
    assert (step["kind"], step["status"], step["name"]) == ("remote", "waiting", "gpu")
    await client.cancel("x")
    assert (await client.result("x", timeout_s=30))["status"] == "CANCELLED"


async def test_schedules_by_client_and_command_line(
    client: Client, nats_server: NatsServer, tenant: str
) -> None:
    def wpa(*arguments: str) -> Any:
        done = invoke_wpa("schedule", *arguments, url=nats_server.url, tenant=tenant)
        return done.returncode, done.stdout + done.stderr

    await client.deploy(plan({"id": "a", "uses": "core.noop"}, schedule={"every": "1h"}))
    (row,) = await client.schedules()
    assert (row["workflow_id"], row["paused"]) == ("w", False)
    assert (await client.pause_schedule("w"))["paused"] is True
    code, text = await asyncio.to_thread(wpa, "list")
    assert (code, "paused" in text) == (0, True)
    started = await client.trigger_schedule("w")
    assert (await client.result(started, timeout_s=30))["status"] == "COMPLETED"
    code, text = await asyncio.to_thread(wpa, "resume", "w")
    assert (code, "goes on" in text) == (0, True)
    code, text = await asyncio.to_thread(wpa, "delete", "other")
    assert (code, "unknown_schedule" in text) == (2, True)
    await client.delete_schedule("w")
    assert (await refused(client.trigger_schedule("w"))).code == "unknown_schedule"
