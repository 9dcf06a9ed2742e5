"""The same that the client can, by the command line and as plain messages."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.asking import APPROVAL, GO, comes_to, plan
from tests.e2e.processes import Wpa, invoke_wpa
from tests.servers import NatsServer
from tests.waiting import until
from wpa.client import Client


@pytest.fixture
async def client(nats_server: NatsServer, tenant: str, worker: Wpa) -> AsyncIterator[Client]:
    async with await Client.connect(nats_server.url, tenant) as client:
        yield client


# -- the command line ------------------------------------------------------------------------


async def test_all_of_it_by_command_line(
    client: Client, nats_server: NatsServer, tenant: str, tmp_path: Path
) -> None:
    async def wpa(*arguments: str, code: int = 0) -> str:
        done = await asyncio.to_thread(invoke_wpa, *arguments, url=nats_server.url, tenant=tenant)
        assert done.returncode == code, (arguments, done.stdout, done.stderr)
        return done.stdout + done.stderr

    undo = {"compensate": {"uses": "e2e.undo"}}
    await client.deploy(
        plan({"id": "a", "uses": "core.noop", **undo}, {"id": "b", **GO}, {"id": "review", **APPROVAL})
    )
    await wpa("start", "w", "--id", "x", "--as", "ada")
    assert (await comes_to(client, "x", "WAITING"))["metadata"] == {"source": "cli", "user_id": "ada"}
    assert "waiting for signal go (b) since" in await wpa("status", "x")
    assert "signal go (b)" in await wpa("list", "--status", "waiting")
    (tmp_path / "p.json").write_text('{"n": 1}')
    assert "x is told: go" in await wpa("signal", "x", "go", "-p", f"@{tmp_path}/p.json", "--id", "1")
    assert "before" in await wpa("signal", "x", "go", "--id", "1")
    await comes_to(client, "x", "WAITING")
    assert "of ada, role manager (0 of 2)" in await wpa("status", "x")
    assert "ship it?" in await wpa("approvals", "list")
    assert "not_allowed" in await wpa("approvals", "approve", "x", "review", "--as", "eve", code=2)
    await wpa("approvals", "approve", "x", "review", "--as", "ada", "--comment", "fine")
    await wpa("approvals", "approve", "x", "review", "--as", "bob", "--role", "manager")
    assert (await client.result("x", timeout_s=30))["status"] == "COMPLETED"
    history = await wpa("history", "x")
    assert "for signal go (b)" in history
    assert "review approved  by ada: fine" in history

    for name in ("p1", "p2"):
        await wpa("start", "w", "--id", name)
        await comes_to(client, name, "WAITING")
    paused = json.loads(await wpa("pause", "p1", "p2", "--reason", "later", "--json"))
    assert [(one["execution_id"], one["ok"]) for one in paused] == [("p1", True), ("p2", True)]
    mixed = await wpa("resume", "p1", "nobody", "p2", code=2)
    assert "p1 goes on" in mixed
    assert "p2 goes on" in mixed
    assert "unknown_execution" in mixed
    await wpa("cancel", "p1", "--no-compensate", "--reason", "wrong")
    assert (await client.result("p1", timeout_s=30))["not_undone"] == ["a"]
    await wpa("terminate", "p2")
    assert "terminated by" in await wpa("watch", "p2", code=1)
    assert "not_retryable" in await wpa("retry", "p2", code=2)
    assert "execution_ended" in await wpa("pause", "p2", code=2)

    await wpa("rerun", "x", "--from", "b", "--id", "again")
    await comes_to(client, "again", "WAITING")
    await client.deploy(
        plan(
            {"id": "a", "uses": "core.noop", **undo}, {"id": "b", **GO}, {"id": "last", "uses": "core.noop"},
            version="2",
        )
    )  # fmt: skip
    assert "1 moved to 2" in await wpa("migrate", "--workflow", "w", "--from", "1", "--to", "2")
    assert "unknown_version" in await wpa("migrate", "--workflow", "w", "--to", "9", code=2)
    await wpa("signal", "again", "go")
    assert (await client.result("again", timeout_s=30))["version"] == "2"
    begins = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    await wpa("start", "w", "--id", "later", "--start-at", begins)
    await comes_to(client, "later", "WAITING")
    assert "begins at" in await wpa("status", "later")
    assert "core.echo" in await wpa("workers", "--steps")


# -- plain messages --------------------------------------------------------------------------


async def test_all_of_it_as_plain_messages(client: Client) -> None:
    """As a service in any language would, with nothing but a connection."""

    async def send(kind: str, execution: str, **payload: Any) -> None:
        await client.publish_start(
            {"type": f"workflow_{kind}", "execution_id": execution, "payload": payload,
             "metadata": {"user_id": "ada", "roles": ["manager"]}}
        )  # fmt: skip

    fails = {"uses": "core.fail", "with": {"until_attempt": 2}, "retry": {"max_attempts": 1}}
    await client.deploy(
        plan(
            {"id": "a", **GO},
            {"id": "review", "uses": "core.approval", "with": {"users": ["ada"]}},
            {"id": "b", **fails},
        )
    )
    await client.start("w", execution_id="x")
    await send("signal", "x", signal="go", payload=1, id="s1")
    await until(client.approvals)
    await send("pause", "x", reason="wait a moment")
    await comes_to(client, "x", "PAUSED")
    await send("resume", "x")
    await comes_to(client, "x", "WAITING")
    await send("answer", "x", step="review", approved=True)
    await comes_to(client, "x", "FAILED")
    await send("retry", "x")
    await comes_to(client, "x", "COMPLETED")

    for kind in ("cancel", "terminate"):
        await client.start("w", execution_id=kind)
        await comes_to(client, kind, "WAITING")
        await send(kind, kind, reason="enough")
        assert (await comes_to(client, kind, "CANCELLED"))["finished_at"]
    await client.start("w", execution_id="moved")
    await comes_to(client, "moved", "WAITING")
    await client.deploy(plan({"id": "a", **GO}, version="2"))
    await send("migrate", "moved", version="2")
    await send("signal", "moved", signal="go")
    assert (await comes_to(client, "moved", "COMPLETED"))["version"] == "2"

    await send("signal", "moved", signal="go")
    letters = await until(client.dlq_list)
    assert letters[0]["code"] == "execution_ended"
