"""On a server with nats-server's own default: messages of 1 MB. What is larger ends with a reason."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import nats
import pytest

from tests.e2e.processes import Wpa, run_wpa
from tests.servers import NatsServer
from wpa.client import Client
from wpa.errors import OverLimit

MESSAGE_BYTES = 1024 * 1024
OUTPUT_BYTES = 2_000_000


@pytest.fixture
def server(server: NatsServer) -> NatsServer:
    server.stop()
    server.max_payload = MESSAGE_BYTES
    server.start()
    return server


async def test_what_is_too_large_ends_with_a_reason(
    server: NatsServer, start_worker: Callable[..., Wpa], client: Client
) -> None:
    worker = start_worker()
    assert "WPA_TASK_BYTES_MAX is 1032192 instead of 4194304" in worker.log.read_text()
    call = {"workflow": "child", "input": {"text": "${steps.make.output}"}}
    steps = [
        {"id": "make", "uses": "e2e.large", "with": {"size": OUTPUT_BYTES}},
        {"id": "sub", "uses": "core.workflow", "with": call, "needs": ["make"]},
    ]
    await client.deploy({"id": "child", "version": "1", "steps": [{"id": "a", "uses": "core.noop"}]})
    await client.deploy({"id": "parent", "version": "1", "steps": steps})
    await client.start("parent", execution_id="x")
    ended = await client.result("x", timeout_s=30)
    assert (ended["status"], ended["failed_step"]) == ("FAILED", "sub")
    assert "the most is 1032192" in ended["error"]["message"]
    with pytest.raises(OverLimit, match=f"messages of {MESSAGE_BYTES} bytes at most"):
        await client.start("child", {"text": "x" * MESSAGE_BYTES}, execution_id="y")

    nc = await nats.connect(server.url)
    js = nc.jetstream()
    await js.add_stream(name="DATA", subjects=["data.raw"])
    trigger = {"subject": "data.raw", "stream": "DATA", "start": {"execution_id": "made-${message.id}"}}
    step = {"id": "a", "uses": "core.noop"}
    await client.deploy({"id": "heard", "version": "1", "steps": [step], "triggers": [trigger]})
    await js.publish("data.raw", json.dumps({"id": 1, "text": "x" * (MESSAGE_BYTES - 200)}).encode())
    await js.publish("data.raw", json.dumps({"id": 2}).encode())
    assert (await client.result("made-2", timeout_s=30))["status"] == "COMPLETED"
    await nc.close()
    assert {letter["code"] for letter in await client.dlq_list()} == {"over_limit"}
    assert "handed back" not in worker.log.read_text()


def test_a_worker_says_what_is_wrong_with_a_server(server: NatsServer, tmp_path: Path) -> None:
    server.stop()
    server.max_payload = 65_536
    server.start()
    told = run_wpa("worker", url=server.url)
    assert told.returncode != 0
    assert "set max_payload" in told.stderr
