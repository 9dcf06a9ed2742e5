"""From any language, with no library of ours: publish a message, subscribe to the events."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from pathlib import Path
from typing import Any

import nats
import pytest
from nats.aio.msg import Msg

from tests.e2e.processes import Wpa
from tests.servers import NatsServer
from tests.waiting import PATIENCE_S
from wpa.client import Client
from wpa.client.connecting import flush

NODE = Path(__file__).parent / "node"

# Only where there is no Node.js; in CI it fails instead.
needs_node = pytest.mark.skipif(
    not (shutil.which("node") and (NODE / "node_modules" / "@nats-io").is_dir())
    and os.environ.get("CI") != "true",
    reason="needs Node.js 20 and its packages: npm ci --prefix tests/e2e/node",
)

DOCUMENT = {
    "id": "hello",
    "version": "1",
    "steps": [
        {"id": "greet", "uses": "e2e.work", "with": {"answer": "hello ${input.name}"}},
        {"id": "shout", "needs": ["greet"], "uses": "core.echo", "with": {"text": "${steps.greet.output}!"}},
    ],
    "output": "${steps.shout.output.text}",
}


async def test_python_with_nats_alone(worker: Wpa, nats_server: NatsServer, tenant: str) -> None:
    async with await Client.connect(nats_server.url, tenant) as client:
        await client.deploy(DOCUMENT)
    nc = await nats.connect(nats_server.url)
    ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    events: list[dict[str, Any]] = []
    live: list[dict[str, Any]] = []

    async def on_event(message: Msg) -> None:
        event = json.loads(message.data)
        (live if message.subject.endswith(".live") else events).append(event)
        if event["event"] == "workflow_completed":
            ended.set_result(None)

    await nc.subscribe(f"workflow.events.{tenant}.>", cb=on_event)
    await flush(nc)
    # Word for word what the README says.
    await nc.publish(
        f"workflow.tasks.{tenant}",
        b'{"type": "workflow_start", "workflow_id": "hello", "payload": {"input_data": {"name": "Ada"}}}',
    )
    await asyncio.wait_for(ended, PATIENCE_S)
    assert [event["event"] for event in events] == [
        "workflow_started",
        "workflow_step_completed",
        "workflow_step_completed",
        "workflow_completed",
    ]
    assert [event["seq"] for event in events] == [1, 2, 3, 4]
    assert [event["event"] for event in live] == ["step_started", "step_started"]
    assert events[-1]["data"]["output"] == "hello Ada!"
    assert {event["service"] for event in events} == {"wpa"}
    assert events[1]["data"]["next"] == ["shout"]
    assert events[1]["data"]["progress_percentage"] == 50
    await nc.close()


@needs_node
async def test_node(worker: Wpa, nats_server: NatsServer, tenant: str) -> None:
    async with await Client.connect(nats_server.url, tenant) as client:
        await client.deploy(DOCUMENT)
    process = await asyncio.create_subprocess_exec(
        "node", "start.mjs", nats_server.url, tenant, "hello", "from-node", '{"name": "Node"}',
        cwd=NODE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, err = await asyncio.wait_for(process.communicate(), 2 * PATIENCE_S)
    assert process.returncode == 0, err.decode()
    found = json.loads(out)
    names = ["workflow_started", "workflow_step_completed", "workflow_step_completed", "workflow_completed"]
    assert found["stream"] == "WPA_TASKS"
    assert [event["event"] for event in found["events"]] == names
    assert found["replayed"] == names
    assert [event["type"] for event in found["events"]] == [f"wpa.{name}" for name in names]
    assert all(event["id"] for event in found["events"])
    assert {event["specversion"] for event in found["events"]} == {"1.0"}
    assert len({event["traceparent"] for event in found["events"]}) == 1
    assert found["events"][-1]["output"] == "hello Node!"
    assert found["live"] == ["step_started", "step_started"]
    assert found["status"] == "COMPLETED"
