"""On servers that take small messages: what is larger ends with a reason, and all that there is can be seen."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nats
import pytest

from tests.e2e.processes import WPA, Wpa, run_wpa
from tests.servers import NatsServer
from wpa.client import Client
from wpa.errors import OverLimit

MESSAGE_BYTES = 1024 * 1024
LEAST_MESSAGE_BYTES = 256 * 1024
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


async def test_everything_can_be_seen_however_much_more_it_is_than_one_message(
    server: NatsServer, start_worker: Callable[..., Wpa], client: Client
) -> None:
    server.stop()
    server.max_payload = LEAST_MESSAGE_BYTES
    server.start()
    start_worker()
    step = {"id": "ask", "uses": "core.approval", "with": {"message": "${input.text}"}}
    for version in range(20):
        document = {"id": "asks", "version": f"{version}", "steps": [step]}
        await client.deploy(document, deployed_by="somebody " * 2_000)
    text = "contract " * 1_500
    for number in range(30):
        await client.start("asks", {"text": f"{number} {text}"}, execution_id=f"a{number}")
    await client.start("asks", {"text": "x" * 200_000}, execution_id="long")
    for _ in range(90):
        await client.pause("a0", reason="r" * 2_000)
        await client.resume("a0", reason="r" * 2_000)

    def shown(*command: str) -> Any:
        told = run_wpa(*command, "--json", url=server.url)
        assert told.returncode == 0, told.stderr
        return json.loads(told.stdout)

    async with asyncio.timeout(60):
        while len(rows := shown("approvals", "list")) < 31:
            await asyncio.sleep(0.2)
    assert {row["execution_id"] for row in rows} == {"long", *(f"a{number}" for number in range(30))}
    assert len(shown("approvals", "list", "--limit", "1")) == 1
    assert len(shown("list", "--limit", "100")) == 31
    assert len(shown("definitions")) == 20
    assert sum(event["data"].get("reason") == "r" * 2_000 for event in shown("history", "a0")) == 180
    assert len(shown("status", "long")["waiting_for"][0]["approval"]["message"]) > 50_000
    watched = subprocess.Popen([WPA, "watch", "a0", "--json", "--nats", server.url], stdout=subprocess.PIPE)
    await client.approve("a0", "ask", user="ada")
    lines = watched.communicate(timeout=60)[0].splitlines()
    assert watched.returncode == 0
    assert sum(json.loads(line)["event"] == "workflow_paused" for line in lines) == 90


def test_a_worker_says_what_is_wrong_with_a_server(server: NatsServer, tmp_path: Path) -> None:
    server.stop()
    server.max_payload = 65_536
    server.start()
    told = run_wpa("worker", url=server.url)
    assert told.returncode != 0
    assert "set max_payload" in told.stderr
