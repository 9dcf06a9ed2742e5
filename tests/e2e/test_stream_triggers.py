"""Triggers that read a stream: whatever becomes of the workers, each message starts one execution."""

from __future__ import annotations

import asyncio
import json
import re
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import nats
import pytest
from nats.aio.client import Client as Connection
from nats.js.api import StreamConfig

from tests.e2e.processes import Wpa, run_wpa
from tests.servers import NatsServer
from tests.waiting import until
from wpa.client import Client
from wpa.errors import DefinitionError

Start = Callable[..., Wpa]


@pytest.fixture
async def owner(server: NatsServer) -> AsyncIterator[Connection]:
    """The owner of a stream, who knows nothing of wpa."""
    connection = await nats.connect(server.url)
    await make_stream(connection)
    yield connection
    await connection.close()


async def make_stream(owner: Connection, name: str = "DATA", subject: str = "data.raw.*") -> None:
    await owner.jetstream().add_stream(StreamConfig(name=name, subjects=[subject]))


async def publish(owner: Connection, numbers: range, subject: str = "data.raw.hall") -> None:
    """Stored, when this returns."""
    js = owner.jetstream()
    await asyncio.gather(*(js.publish(subject, json.dumps({"n": n}).encode()) for n in numbers))


async def place(owner: Connection) -> Any:
    """How far the stream has been read."""
    return (await owner.jetstream().consumers_info("DATA"))[0]


async def all_read(owner: Connection) -> bool:
    """Whether everything in the stream has been read, and acknowledged."""
    info = await place(owner)
    return bool(info.num_pending == 0 and info.num_ack_pending == 0)


async def consumers(owner: Connection, stream: str = "DATA") -> int:
    return len(await owner.jetstream().consumers_info(stream))


def definition(*triggers: dict[str, Any], version: str = "1", uses: str = "core.echo") -> dict[str, Any]:
    steps = [{"id": "a", "uses": uses, "with": {"n": "${input.n}"}}]
    return {"id": "react", "version": version, "steps": steps, "triggers": list(triggers)}


ON_DATA = {"subject": "data.raw.*", "stream": "DATA", "start": {"input": {"n": "${message.n}"}}}


async def inputs(client: Client) -> list[int]:
    """Of every execution there is, what it was started with."""
    rows = await client.executions(limit=500, workflow="react")
    return sorted([(await client.status(row["execution_id"]))["input"]["n"] for row in rows])


async def all_started(client: Client, count: int) -> None:
    """So many, and not one more."""

    async def there() -> bool:
        return len(await client.executions(limit=500, workflow="react")) >= count

    await until(there)


async def test_what_is_published_while_no_worker_runs_starts_when_one_comes(
    start_worker: Start, client: Client, owner: Connection
) -> None:
    await publish(owner, range(900, 905))
    worker = start_worker()
    await client.deploy(definition(ON_DATA))
    await publish(owner, range(5))  # at once: what comes after the deploy counts
    await all_started(client, 5)
    worker.kill()
    await publish(owner, range(5, 50))
    start_worker()
    await all_started(client, 50)
    assert await inputs(client) == list(range(50)), "each once, and none from before the deploy"


async def test_messages_in_the_hands_of_a_killed_worker_start_one_execution_each(
    start_worker: Start, client: Client, owner: Connection
) -> None:
    frozen = start_worker(ack_wait=1.0)
    await client.deploy(definition(ON_DATA))
    await publish(owner, range(1))
    await all_started(client, 1)
    frozen.process.send_signal(signal.SIGSTOP)
    await publish(owner, range(1, 50))

    async def handed_out() -> bool:
        return (await place(owner)).num_ack_pending == 49

    await until(handed_out)
    frozen.kill()
    start_worker(ack_wait=1.0)
    await all_started(client, 50)
    assert await inputs(client) == list(range(50))


async def test_workers_that_are_killed_at_work_make_no_message_count_twice(
    start_worker: Start, client: Client, owner: Connection
) -> None:
    workers = [start_worker(ack_wait=1.0) for _ in range(2)]
    await client.deploy(definition(ON_DATA))
    publishing = asyncio.create_task(publish(owner, range(400)))
    for _ in range(3):
        await asyncio.sleep(0.15)
        workers.pop(0).kill()
        workers.append(start_worker(ack_wait=1.0))
    await publishing
    await all_started(client, 400)

    await until(lambda: all_read(owner))
    assert await inputs(client) == list(range(400))
    assert await client.dlq_list() == []


async def test_the_first_version_may_begin_with_the_first_and_later_ones_go_on(
    start_worker: Start, client: Client, owner: Connection
) -> None:
    await publish(owner, range(10))
    start_worker()
    first = {**ON_DATA, "from": "first"}
    await client.deploy(definition(first))
    await all_started(client, 10)
    await client.deploy(definition(first, version="2"))
    await publish(owner, range(10, 12))
    await all_started(client, 12)
    assert await inputs(client) == list(range(12))
    assert await consumers(owner) == 1


async def test_a_version_that_drops_the_trigger_deletes_its_consumer(
    start_worker: Start, client: Client, owner: Connection
) -> None:
    workers = [start_worker() for _ in range(3)]
    await client.deploy(definition(ON_DATA))
    assert await consumers(owner) == 1, "when the deploy is answered, the place in the stream is kept"
    await client.deploy(definition(version="2"))

    async def nobody_reads() -> bool:
        return await consumers(owner) == 0

    await until(nobody_reads)
    await publish(owner, range(3))
    assert await inputs(client) == []
    for worker in workers:
        assert worker.stop() == 0


async def test_what_is_of_no_use_becomes_a_dead_letter_and_is_not_delivered_again(
    start_worker: Start, client: Client, owner: Connection
) -> None:
    start_worker()
    await client.deploy(definition(ON_DATA))
    await owner.jetstream().publish("data.raw.x", b"\xff\x00")
    await owner.jetstream().publish("data.raw.x", b'{"m": 5}')
    await publish(owner, range(1))
    await all_started(client, 1)

    async def two() -> Any:
        letters = await client.dlq_list()
        return letters if len(letters) == 2 else None

    codes = {letter["code"]: letter for letter in await until(two)}
    assert codes.keys() == {"not_json", "bad_mapping"}
    await until(lambda: all_read(owner))
    await client.deploy(definition({**ON_DATA, "start": {"input": {"n": "${message.m}"}}}, version="2"))
    await client.dlq_retry(codes["bad_mapping"]["sequence"])
    await all_started(client, 2)
    assert await inputs(client) == [0, 5]


async def test_a_stream_that_disappears_is_waited_for(
    start_worker: Start, client: Client, owner: Connection
) -> None:
    worker = start_worker()
    await client.deploy(definition(ON_DATA))
    await publish(owner, range(1))
    await all_started(client, 1)
    await owner.jetstream().delete_stream("DATA")

    await until(
        lambda: re.search("not in force.*stream DATA|stream DATA.*not in force", worker.log.read_text())
    )
    started = await client.start("react", input={"n": 100})
    assert (await client.result(started.execution_id, timeout_s=30))["status"] == "COMPLETED"
    await make_stream(owner)
    await publish(owner, range(1, 3))  # the sequences begin anew, and these are other messages
    await all_started(client, 4)
    assert await inputs(client) == [0, 1, 2, 100]


async def test_the_server_may_be_away(
    start_worker: Start, client: Client, owner: Connection, server: NatsServer
) -> None:
    start_worker()
    await client.deploy(definition(ON_DATA))
    await publish(owner, range(20))
    await asyncio.to_thread(server.restart)

    async def back() -> bool:
        try:
            await owner.jetstream().stream_info("DATA")
        except Exception:
            return False
        return True

    await until(back)
    await publish(owner, range(20, 40))
    await all_started(client, 40)
    assert await inputs(client) == list(range(40))


async def test_a_deploy_is_refused_where_the_stream_will_not_do(
    start_worker: Start, client: Client, owner: Connection, server: NatsServer, tmp_path: Path
) -> None:
    start_worker()
    await owner.jetstream().add_stream(
        StreamConfig(name="JOBS", subjects=["jobs.*"], retention="workqueue")  # type: ignore[arg-type]
    )
    refused = [
        ({**ON_DATA, "stream": "DATEN"}, "$.triggers[0].stream", "did you mean 'DATA'"),
        ({**ON_DATA, "stream": "GONE", "subject": "x.y"}, "$.triggers[0].stream", "nats stream add GONE"),
        ({**ON_DATA, "subject": "data.>"}, "$.triggers[0].subject", "captures data.raw.*"),
        ({**ON_DATA, "stream": "JOBS", "subject": "jobs.*"}, "$.triggers[0].from", "work queue"),
        ({**ON_DATA, "stream": "WPA_EVENTS"}, "$.triggers[0].stream", "of your own"),
    ]
    for trigger, path, words in refused:
        with pytest.raises(DefinitionError) as caught:
            await client.deploy(definition(trigger))
        assert path in str(caught.value)
        assert words in str(caught.value)
    file = tmp_path / "react.json"
    file.write_text(json.dumps(definition({**ON_DATA, "stream": "DATEN"})))
    done = await asyncio.to_thread(run_wpa, "deploy", str(file), url=server.url)
    assert done.returncode != 0
    assert "$.triggers[0].stream" in done.stdout + done.stderr
    assert "DATEN" in done.stdout + done.stderr
    jobs = {**ON_DATA, "stream": "JOBS", "subject": "jobs.*", "from": "first"}
    await publish(owner, range(2), "jobs.a")
    await client.deploy(definition(jobs))
    await all_started(client, 2)
