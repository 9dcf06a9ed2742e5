"""What an operator changed on a server, and what a worker, and ``wpa doctor``, say of it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import nats
from nats.js.api import StreamConfig

from tests.e2e.processes import EXAMPLES, Wpa, invoke_wpa, run_wpa
from tests.servers import NatsServer


async def edit(url: str, stream: str, **changes: float) -> None:
    connection = await nats.connect(url)
    try:
        js = connection.jetstream()
        found: StreamConfig = (await js.stream_info(stream)).config
        await js.update_stream(found.evolve(**changes))
    finally:
        await connection.close()


async def ask(url: str, verb: str, body: dict[str, Any]) -> dict[str, Any]:
    connection = await nats.connect(url)
    try:
        reply = await connection.request(f"$JS.API.{verb}", json.dumps(body).encode(), timeout=5)
    finally:
        await connection.close()
    answer: dict[str, Any] = json.loads(reply.data)
    assert "error" not in answer
    return answer


async def limit_tries(url: str, stream: str, consumer: str) -> None:
    config = (await ask(url, f"CONSUMER.INFO.{stream}.{consumer}", {}))["config"]
    verb = f"CONSUMER.CREATE.{stream}.{consumer}.{config['filter_subject']}"
    await ask(url, verb, {"stream_name": stream, "config": {**config, "max_deliver": 3}})


def test_an_expiry_that_somebody_sets(server: NatsServer, start_worker: Callable[..., Wpa]) -> None:
    assert invoke_wpa("doctor", url=server.url).returncode == 0, "a worker makes what is missing"
    start_worker()
    looked = invoke_wpa("doctor", url=server.url)
    assert (looked.returncode, looked.stdout[:3]) == (0, "ok:")
    day = timedelta(days=1).total_seconds()
    asyncio.run(edit(server.url, "OBJ_wpa_payloads", max_age=day))
    asyncio.run(edit(server.url, "KV_wpa_definitions", max_age=day))
    looked = invoke_wpa("doctor", url=server.url)
    assert looked.returncode == 1
    for stream in ("OBJ_wpa_payloads", "KV_wpa_definitions"):
        assert f"fault: stream {stream} has max_age = 86400 s" in looked.stderr
    refused = run_wpa("worker", url=server.url)
    assert refused.returncode != 0
    assert "nats stream edit" in refused.stderr


def test_a_paused_consumer_and_one_that_gives_up(
    server: NatsServer, start_worker: Callable[..., Wpa]
) -> None:
    start_worker()
    assert invoke_wpa("deploy", str(EXAMPLES / "decision.json"), url=server.url).returncode == 0
    start = ("start", "decision", "--input", '{"amount_cents": 5}')
    assert invoke_wpa(*start, "--wait", url=server.url).returncode == 0
    until = (datetime.now(UTC) + timedelta(hours=1)).isoformat(timespec="seconds")
    asyncio.run(limit_tries(server.url, "WPA_TASKS", "tasks-default"))
    asyncio.run(ask(server.url, "CONSUMER.PAUSE.WPA_TASKS.tasks-default", {"pause_until": until}))
    looked = invoke_wpa("doctor", url=server.url)
    assert looked.returncode == 1
    assert "consumer tasks-default of stream WPA_TASKS is paused until" in looked.stderr
    assert "nats consumer resume WPA_TASKS tasks-default" in looked.stderr
    assert "consumer tasks-default of stream WPA_TASKS has max_deliver = 3" in looked.stderr

    assert invoke_wpa(*start, "--id", "waits", url=server.url).returncode == 0
    start_worker().wait_ready("is paused until")
    looked = invoke_wpa("doctor", url=server.url)
    assert "paused" in looked.stderr, "whoever paused it may want it so"
    assert "max_deliver" not in looked.stderr, "put right by the worker that started"

    asyncio.run(ask(server.url, "CONSUMER.PAUSE.WPA_TASKS.tasks-default", {}))
    assert invoke_wpa("doctor", url=server.url).returncode == 0
    assert invoke_wpa("watch", "waits", url=server.url).returncode == 0


def test_a_stream_that_somebody_deleted(server: NatsServer, start_worker: Callable[..., Wpa]) -> None:
    start_worker().stop()
    asyncio.run(ask(server.url, "STREAM.DELETE.WPA_TASKS", {}))
    looked = invoke_wpa("doctor", url=server.url)
    assert looked.returncode == 1
    assert "fault: stream WPA_TASKS is missing, while others are there" in looked.stderr
