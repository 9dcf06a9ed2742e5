"""Triggers on a real server: what anybody publishes starts executions, or wakes them, once each."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import nats
import pytest
from nats.aio.client import Client as Connection
from nats.errors import NoRespondersError

from tests.e2e.processes import EXAMPLES, Wpa
from tests.servers import NatsServer
from tests.waiting import until
from wpa.client import Client
from wpa.client.connecting import flush

Start = Callable[..., Wpa]


@pytest.fixture
async def publisher(server: NatsServer) -> AsyncIterator[Connection]:
    """A service that knows nothing of wpa."""
    connection = await nats.connect(server.url)
    yield connection
    await connection.close()


async def publish(
    publisher: Connection, subject: str, message: Any, headers: dict[str, str] | None = None
) -> None:
    data = message if isinstance(message, bytes) else json.dumps(message).encode()
    await publisher.publish(subject, data, headers=headers)
    await flush(publisher)


def definition(*triggers: dict[str, Any], version: str = "1", **more: Any) -> dict[str, Any]:
    steps = [{"id": "a", "uses": "core.echo", "with": {"n": "${input.n}"}}]
    return {"id": "react", "version": version, "steps": steps, "triggers": list(triggers), **more}


ON_DATA = {"subject": "data.>", "start": {"input": {"n": "${message.n}"}}}


async def inputs(client: Client) -> list[int]:
    """Of every execution there is, what it was started with."""
    return sorted([(await client.status(row["execution_id"]))["input"]["n"] for row in await started(client)])


async def started(client: Client) -> list[dict[str, Any]]:
    return await client.executions(limit=500, workflow="react")


async def test_the_pipeline_of_the_examples(
    start_worker: Start, client: Client, publisher: Connection
) -> None:
    for _ in range(2):
        start_worker()
    await client.deploy(json.loads((EXAMPLES / "pipeline.json").read_text()))
    emitted = await publisher.subscribe("workflow.emit.default.readings.t1")
    await publish(publisher, "data.raw.hall", {"id": 1, "sensor": "t1", "value": 21.5})
    await publish(publisher, "data.raw.hall", {"id": 2, "sensor": "t1", "value": -3.0})

    async def waits() -> bool:
        rows = await client.executions(workflow="pipeline")
        return bool(rows and (await client.status("reading-1"))["at_rest"])

    await until(waits)
    for _ in range(2):
        await publish(publisher, "data.reviewed.hall", {"id": 1, "good": True}, {"Nats-Msg-Id": "r1"})
    done = await client.result("reading-1", timeout_s=30)
    assert done["status"] == "COMPLETED"
    assert done["input"] == {"sensor": "t1", "value": 21.5, "from": "data.raw.hall"}
    assert json.loads((await emitted.next_msg(30)).data) == {"value": 21.5}
    assert len(await client.executions(workflow="pipeline")) == 1, "the filter leaves the other alone"
    events = [event["event"] for event in await client.history("reading-1")]
    assert events.count("workflow_signalled") == 1


async def test_of_several_workers_one_has_each_message_and_deploys_are_followed(
    start_worker: Start, client: Client, publisher: Connection
) -> None:
    for _ in range(3):
        start_worker()
    await client.deploy(definition(ON_DATA))
    for n in range(200):
        await publisher.publish(f"data.x{n % 7}", json.dumps({"n": n}).encode())
    await flush(publisher)

    async def all_there() -> bool:
        return len(await started(client)) >= 200

    await until(all_there)
    assert await inputs(client) == list(range(200))
    await client.deploy(definition({**ON_DATA, "subject": "fresh.*"}, version="2"))

    async def nobody_listens() -> bool:
        try:
            await publisher.request("data.x", b'{"n": -1}', timeout=0.05)
        except NoRespondersError:
            return True
        except nats.errors.TimeoutError:
            await asyncio.sleep(0.1)
        return False

    await until(nobody_listens)  # each of the workers hears of the new version by itself
    await publish(publisher, "data.x", {"n": 1_000})
    await publish(publisher, "fresh.x", {"n": 2_000})

    async def fresh() -> bool:
        return 2_000 in await inputs(client)

    await until(fresh)
    await asyncio.sleep(0.3)
    assert [n for n in await inputs(client) if n >= 0] == [*range(200), 2_000]
    assert await client.dlq_list() == []


async def test_a_key_makes_of_several_messages_one(
    start_worker: Start, client: Client, publisher: Connection
) -> None:
    start_worker()
    trigger = {
        "subject": "orders.*",
        "start": {"input": {"n": "${message.n}"}, "idempotency_key": "${message.order}"},
    }
    await client.deploy(definition(trigger))
    for n in range(3):
        await publish(publisher, "orders.new", {"order": "o-1", "n": n})
    await publish(publisher, "orders.new", {"order": "o-2", "n": 9})

    async def two() -> bool:
        return len(await started(client)) >= 2

    await until(two)
    await asyncio.sleep(0.5)
    assert len(await started(client)) == 2
    assert await client.dlq_list() == []


async def test_what_breaks_its_mapping_is_a_dead_letter_that_can_be_mended(
    start_worker: Start, client: Client, publisher: Connection
) -> None:
    start_worker()
    await client.deploy(definition(ON_DATA))
    await publish(publisher, "data.odd", {"m": 5}, {"From": "lab"})
    await publish(publisher, "data.binary", b"\xff\x00")

    async def two() -> Any:
        letters = await client.dlq_list()
        return letters if len(letters) == 2 else None

    letters = {letter["subject"]: letter for letter in await until(two)}
    assert letters["data.odd"]["code"] == "bad_mapping"
    assert "n" in letters["data.odd"]["message"]
    assert letters["data.binary"]["code"] == "not_json"
    shown = await client.dlq_show(letters["data.odd"]["sequence"])
    assert shown["text"] == '{"m": 5}'
    await publish(publisher, "data.fine", {"n": 1})

    async def fine() -> bool:
        return len(await started(client)) == 1

    await until(fine)
    await client.deploy(
        definition({"subject": "data.>", "start": {"input": {"n": "${message.m}"}}}, version="2")
    )
    await client.dlq_retry(letters["data.odd"]["sequence"])

    async def mended() -> bool:
        return len(await started(client)) == 2

    await until(mended)
    assert [letter["subject"] for letter in await client.dlq_list()] == ["data.binary"]


async def test_a_signal_to_an_execution_that_is_not_there_is_a_dead_letter(
    start_worker: Start, client: Client, publisher: Connection
) -> None:
    start_worker()
    trigger = {"subject": "done.*", "signal": {"name": "done", "correlation": "job-${message.id}"}}
    await client.deploy(definition(trigger, signals={"done": {}}))
    await publish(publisher, "done.x", {"id": 1})

    async def there() -> Any:
        return await client.dlq_list()

    (letter,) = await until(there, within_s=60)
    assert letter["code"] == "unknown_execution"
    assert "job-1" in letter["message"]
    shown = await client.dlq_show(letter["sequence"])
    assert json.loads(shown["text"])["payload"]["payload"] == {"id": 1}


async def test_what_a_worker_has_heard_survives_its_stop_and_the_servers_end(
    start_worker: Start, client: Client, publisher: Connection, server: NatsServer
) -> None:
    worker = start_worker()
    await client.deploy(definition(ON_DATA))
    await asyncio.to_thread(server.restart)

    async def back() -> bool:
        try:
            await publish(publisher, "data.probe", {"n": -1})
            return len(await started(client)) > 0
        except Exception:
            return False

    await until(back)
    for n in range(50):
        await publisher.publish("data.x", json.dumps({"n": n}).encode())
    await flush(publisher)

    async def heard() -> bool:
        return 0 in await inputs(client)

    await until(heard)  # the first, and what came with it
    assert worker.stop() == 0
    start_worker()

    async def all_there() -> bool:
        return [n for n in await inputs(client) if n >= 0] == list(range(50))

    await until(all_there)


async def test_a_workflow_reacts_to_what_its_tenants_steps_emit(
    start_worker: Start, client: Client, server: NatsServer, tmp_path: Path
) -> None:
    start_worker()
    await client.deploy(
        definition({"subject": "workflow.emit.*.news", "start": {"input": {"n": "${message.n}"}}})
    )
    speak = {
        "id": "speak",
        "version": "1",
        "steps": [{"id": "say", "uses": "core.emit", "with": {"subject": "news", "data": {"n": 4}}}],
    }
    await client.deploy(speak)
    async with await Client.connect(server.url, "other") as other:
        await other.deploy(speak)
        theirs = await other.start("speak")
        await other.result(theirs.execution_id, timeout_s=30)
    assert await started(client) == []
    await client.start("speak")

    async def one() -> bool:
        return len(await started(client)) == 1

    await until(one)
