"""All that can be asked of an execution, by the client."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.asking import APPROVAL, GO, PROMPTLY_S, comes_to, names, plan, refused, runs, status_when
from tests.e2e.processes import Wpa, ledger
from tests.servers import NatsServer
from tests.waiting import until
from wpa.client import Client
from wpa.model.times import parse_ms


@pytest.fixture
async def client(nats_server: NatsServer, tenant: str, worker: Wpa) -> AsyncIterator[Client]:
    async with await Client.connect(nats_server.url, tenant) as client:
        yield client


# -- signals ---------------------------------------------------------------------------------


async def test_signals_before_and_after_the_wait_and_one_id_counts_once(
    client: Client, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    await client.deploy(
        plan(
            {"id": "a", "uses": "e2e.gate", "with": {"path": str(gate)}}, {"id": "b", **GO}, {"id": "c", **GO}
        )
    )
    await client.start("w", execution_id="x")
    await runs(client, "x", "a")
    early = await client.signal("x", "go", {"n": 1}, id="one", metadata={"user_id": "ada"})
    assert (early.duplicate, early.queued) == (False, False)
    assert (await client.status("x"))["signals"] == {"count": 1, "names": ["go"]}
    assert (await client.signal("x", "go", {"n": 1}, id="one")).duplicate
    gate.touch()
    waiting = await comes_to(client, "x", "WAITING")
    assert [slot["step"] for slot in waiting["waiting_for"]] == ["c"]
    assert waiting["steps"][1]["output"] == {"n": 1}
    assert (waiting["steps"][2]["status"], waiting["steps"][2]["name"]) == ("waiting", "go")
    assert (await client.signal("x", "go", {"n": 1}, id="one")).duplicate
    late = await client.signal("x", "go", [2])
    assert late.queued
    done = await client.result("x", timeout_s=30)
    assert (done["status"], done["steps"][2]["output"]) == ("COMPLETED", [2])
    settled = [event for event in await client.history("x") if event["event"] == "workflow_step_completed"]
    assert settled[1]["data"]["by"] == {"user_id": "ada"}
    assert (await refused(client.signal("x", "go"))).code == "execution_ended"


async def test_a_signal_that_is_of_no_use_is_refused_with_a_hint(client: Client) -> None:
    await client.deploy(plan({"id": "a", **GO}))
    await client.start("w", execution_id="x")
    await comes_to(client, "x", "WAITING")
    for asked, code, words in [
        (client.signal("nobody", "go"), "unknown_execution", "no execution nobody"),
        (client.signal("x", "goo"), "bad_signal", "did you mean 'go'"),
        (client.signal("x", "not a name"), "invalid_name", "$.signal"),
        (client.signal("x", ""), "bad_request", "$.signal is missing"),
        (
            client.request("signal", {"execution_id": "x", "signal": 5}),
            "bad_request",
            "$.signal must be a string",
        ),
        (client.signal("a.b", "go"), "invalid_name", "execution id"),
        (client.signal("x", "go", id="x" * 300), "invalid_name", "$.id"),
    ]:
        error = await refused(asked)
        assert error.code == code
        assert words in error.message
    with pytest.raises(ValueError, match="NaN"):
        await client.signal("x", "go", float("nan"))


# -- approvals -------------------------------------------------------------------------------


async def test_two_people_approve_and_who_may_not_is_told_who_may(client: Client) -> None:
    await client.deploy(plan({"id": "review", **APPROVAL}))
    await client.start("w", execution_id="x")
    await comes_to(client, "x", "WAITING")
    error = await refused(client.approve("x", "review", user="eve"))
    assert error.code == "not_allowed"
    assert "ada" in error.message
    assert "role manager" in error.message
    assert (await refused(client.approve("x", "reviev", user="ada"))).code == "not_waiting"
    assert (
        await refused(client.request("answer", {"execution_id": "x", "step": "review"}))
    ).code == "bad_request"

    (row,) = await client.approvals()
    assert (row["execution_id"], row["step"], row["approval"]["message"]) == ("x", "review", "ship it?")
    assert (row["approval"]["users"], row["approval"]["roles"]) == (["ada"], ["manager"])
    await client.approve("x", "review", user="ada", comment="fine")

    async def answers() -> Any:
        return (await client.approvals())[0]["approval"]["answers"]

    (answer,) = await until(answers)
    assert (answer["by"]["user_id"], answer["decision"], answer["comment"]) == ("ada", "approved", "fine")
    assert (await client.approve("x", "review", user="ada")).duplicate
    assert (await comes_to(client, "x", "WAITING"))["waiting_for"][0]["approval"]["count"] == 2

    await client.approve("x", "review", user="bob", roles=["manager"])
    done = await client.result("x", timeout_s=30)
    output = done["steps"][0]["output"]
    assert output["approved"] is True
    assert [answer["by"]["user_id"] for answer in output["answers"]] == ["ada", "bob"]
    assert await client.approvals() == []


async def test_one_rejection_decides(client: Client) -> None:
    await client.deploy(plan({"id": "review", **APPROVAL}))
    await client.start("w", execution_id="x")
    await comes_to(client, "x", "WAITING")
    await client.reject("x", "review", user="ada", comment="too dear")
    done = await client.result("x", timeout_s=30)
    assert done["steps"][0]["output"]["approved"] is False
    assert done["steps"][0]["output"]["answers"][0]["comment"] == "too dear"


async def test_an_approval_beside_a_running_step_is_listed_too(client: Client) -> None:
    steps = [{"id": "review", **APPROVAL}, {"id": "busy", "uses": "e2e.work", "with": {"seconds": 60}}]
    await client.deploy({"id": "w", "version": "1", "steps": steps})
    await client.start("w", execution_id="x")
    await runs(client, "x", "busy")
    assert [row["step"] for row in await client.approvals()] == ["review"]
    await client.terminate("x")
    await comes_to(client, "x", "CANCELLED")


# -- pause, cancel, terminate, retry ---------------------------------------------------------


async def test_a_pause_survives_its_worker(
    server: NatsServer, start_worker: Callable[..., Wpa], ledger_file: Path, tmp_path: Path
) -> None:
    first = start_worker()
    gate = tmp_path / "gate"
    async with await Client.connect(server.url) as client:
        await client.deploy(
            plan(
                {"id": "a", "uses": "e2e.gate", "with": {"path": str(gate)}},
                {"id": "b", "uses": "e2e.work"},
                {"id": "c", **GO},
            )
        )
        await client.start("w", execution_id="x")
        await runs(client, "x", "a")
        asked = await client.pause("x", reason="a look first", metadata={"user_id": "ada"})
        assert not asked.queued
        assert (await client.pause("x")).duplicate
        await comes_to(client, "x", "PAUSED")
        gate.touch()
        await status_when(
            client, "x", lambda found: found["steps"][0]["status"] == "completed" and found["at_rest"]
        )
        first.kill()
        start_worker()
        await asyncio.sleep(1)
        assert (await client.status("x"))["status"] == "PAUSED"
        assert [line["step"] for line in ledger(ledger_file, what="start")] == ["a"]
        assert [row["status"] for row in await client.executions()] == ["PAUSED"]
        assert (await client.signal("x", "go")).queued is False  # kept until it goes on
        assert (await client.resume("x", reason="looked at")).queued
        done = await client.result("x", timeout_s=30)
        assert done["status"] == "COMPLETED"
        by = [e["data"]["by"] for e in await client.history("x") if e["event"] == "workflow_paused"]
        assert by == [{"user_id": "ada"}]


async def test_a_cancel_reaches_a_running_step_at_once_and_undoes(client: Client) -> None:
    await client.deploy(
        plan(
            {"id": "a", "uses": "core.noop", "compensate": {"uses": "e2e.undo"}},
            {"id": "b", "uses": "e2e.work", "with": {"seconds": 60}},
        )
    )
    for execution, compensate in (("with", True), ("without", False)):
        await client.start("w", execution_id=execution)
        await runs(client, execution, "b")
        began = time.monotonic()
        await client.cancel(execution, reason="enough", compensate=compensate, metadata={"user_id": "ada"})
        done = await client.result(execution, timeout_s=30)
        assert time.monotonic() - began < PROMPTLY_S
        assert done["status"] == "CANCELLED"
        assert (done["undone"], done["not_undone"]) == ((["a"], []) if compensate else ([], ["a"]))
        assert done["cancel"]["by"] == {"user_id": "ada"}
        assert (await client.cancel(execution)).duplicate
        rows = await client.executions(status="CANCELLED")
        assert execution in [row["execution_id"] for row in rows]


async def test_a_cancel_overtakes_a_full_queue(
    server: NatsServer, start_worker: Callable[..., Wpa], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WPA_CONCURRENCY", "1")
    start_worker()
    async with await Client.connect(server.url) as client:
        await client.deploy(plan({"id": "a", "uses": "e2e.work", "with": {"seconds": 60}}))
        await client.start("w", execution_id="first")
        await runs(client, "first", "a")
        for number in range(50):
            await client.start("w", execution_id=f"later-{number}")
        began = time.monotonic()
        assert not (await client.cancel("first")).queued
        assert (await client.result("first", timeout_s=30))["status"] == "CANCELLED"
        assert time.monotonic() - began < PROMPTLY_S


async def test_a_waiting_execution_is_cancelled_and_a_terminated_one_undoes_nothing(client: Client) -> None:
    await client.deploy(
        plan({"id": "a", "uses": "core.noop", "compensate": {"uses": "e2e.undo"}}, {"id": "b", **GO})
    )
    await client.start("w", execution_id="cancelled")
    await comes_to(client, "cancelled", "WAITING")
    assert (await client.cancel("cancelled")).queued
    done = await client.result("cancelled", timeout_s=30)
    assert (done["status"], done["undone"]) == ("CANCELLED", ["a"])

    await client.start("w", execution_id="terminated")
    await comes_to(client, "terminated", "WAITING")
    await client.terminate("terminated", reason="no more")
    done = await client.result("terminated", timeout_s=30)
    assert (done["status"], done["undone"], done["not_undone"]) == ("CANCELLED", [], ["a"])
    assert [step["status"] for step in done["steps"]] == ["completed", "cancelled"]
    last = (await client.history("terminated"))[-1]
    assert (last["data"]["terminated"], last["data"]["reason"]) == (True, "no more")
    assert (await refused(client.pause("terminated"))).code == "execution_ended"


async def test_a_running_step_is_stopped_when_its_execution_is_terminated(client: Client) -> None:
    await client.deploy(plan({"id": "a", "uses": "e2e.work", "with": {"seconds": 60}}))
    await client.start("w", execution_id="x")
    await runs(client, "x", "a")
    began = time.monotonic()
    await client.terminate("x")
    assert (await client.result("x", timeout_s=30))["status"] == "CANCELLED"
    assert time.monotonic() - began < PROMPTLY_S


async def test_a_failed_execution_is_tried_again_in_place(client: Client) -> None:
    await client.deploy(
        plan(
            {"id": "a", "uses": "core.echo", "with": {"n": 1}},
            {"id": "b", "uses": "core.fail", "with": {"until_attempt": 2}, "retry": {"max_attempts": 1}},
            {"id": "c", "uses": "core.noop"},
        )
    )
    await client.start("w", execution_id="x")
    assert (await client.result("x", timeout_s=30))["status"] == "FAILED"
    watched = [event async for event in client.watch("x")]
    assert watched[-1]["event"] == "workflow_failed"
    await client.retry("x", reason="it was the network", metadata={"user_id": "ada"})
    done = await client.result("x", timeout_s=30)
    assert (done["status"], done["error"]) == ("COMPLETED", None)
    assert [step["attempt"] for step in done["steps"]] == [1, 2, 1]
    # Past the old end, to the new one.
    assert names([event async for event in client.watch("x") if "seq" in event])[-1] == "completed"
    error = await refused(client.retry("x"))
    assert error.code == "not_retryable"
    assert "wpa rerun x" in error.message


async def test_a_start_that_begins_later(client: Client) -> None:
    await client.deploy(plan({"id": "a", "uses": "core.noop"}))
    begins = datetime.now(UTC) + timedelta(seconds=4)
    await client.start("w", execution_id="x", start_at=begins)
    waiting = await comes_to(client, "x", "WAITING")
    assert abs(parse_ms(waiting["start_at"]) - begins.timestamp() * 1000) <= 1
    assert waiting["wake_at"] == waiting["start_at"]
    (row,) = await client.executions(status="waiting")
    assert row["until"] == waiting["start_at"]
    done = await client.result("x", timeout_s=30)
    assert done["status"] == "COMPLETED"
    assert done["steps"][0]["started_at"] >= waiting["start_at"]
    with pytest.raises(ValueError, match="time zone"):
        await client.start("w", start_at=datetime(2030, 1, 1))  # noqa: DTZ001
    assert (await refused(client.start("w", start_at="tomorrow"))).code == "not_a_task"
    past = await client.start("w", start_at="2020-01-01T00:00:00Z")
    assert (await client.result(past.execution_id, timeout_s=30))["status"] == "COMPLETED"
