"""The client against a real server, with workers that come and go: played here, to the moment."""

from __future__ import annotations

import asyncio
import json
import logging
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import nats
import pytest
from nats.aio.client import Client as Connection
from nats.aio.msg import Msg

from tests.servers import NatsServer, find_binary
from wpa.client import AskResult, Client, channel, following, without_password
from wpa.client.connecting import flush
from wpa.errors import InvalidName, OverLimit, TaskRejected, Unavailable

Body = dict[str, Any]


class Worker:
    """Answers the API from a table; ``leave`` and ``come`` as a worker's process would."""

    def __init__(self, connection: Connection, tenant: str) -> None:
        self.connection = connection
        self.tenant = tenant
        self.answers: dict[str, Body] = {}
        self.asked: list[tuple[str, Body]] = []
        self.deaf = 0
        self._subscription: Any = None

    async def come(self) -> None:
        self._subscription = await self.connection.subscribe(f"workflow.api.{self.tenant}.*", cb=self._answer)
        await flush(self.connection)

    async def leave(self) -> None:
        await self._subscription.unsubscribe()
        await flush(self.connection)

    async def _answer(self, message: Msg) -> None:
        verb = message.subject.rpartition(".")[2]
        self.asked.append((verb, json.loads(message.data)))
        if self.deaf:
            self.deaf -= 1
            return
        await message.respond(json.dumps(self.answers[verb]).encode())

    def is_at(self, status: str, *events: Body) -> None:
        self.answers["status"] = {"ok": True, "execution": {"status": status}}
        self.answers["history"] = {"ok": True, "events": list(events), "more": False}

    async def publish(self, event: Body, live: bool = False, position: int = 0) -> None:
        subject = f"workflow.events.{self.tenant}.e1" + (".live" if live else "")
        headers = {"Nats-Sequence": str(position)} if position else None
        await self.connection.publish(subject, json.dumps(event).encode(), headers=headers)
        await flush(self.connection)


@pytest.fixture
async def worker(nats_server: NatsServer, tenant: str) -> AsyncIterator[Worker]:
    connection = await nats.connect(nats_server.url)
    worker = Worker(connection, tenant)
    await worker.come()
    yield worker
    await connection.close()


@pytest.fixture
async def client(
    nats_server: NatsServer, tenant: str, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Client]:
    monkeypatch.setattr(following, "POLL_EVERY_S", 0.3)
    monkeypatch.setattr(channel, "REQUEST_TIMEOUT_S", 1.0)
    async with await Client.connect(nats_server.url, tenant) as client:
        yield client


async def first(events: AsyncIterator[Body]) -> Body:
    return await anext(events)


def event(name: str, seq: int) -> Body:
    return {"event": name, "seq": seq, "execution_id": "e1"}


STARTED, DONE = event("workflow_started", 1), event("workflow_completed", 2)


async def test_nobody_there_is_told_at_once() -> None:
    with pytest.raises(Unavailable, match=r"nats://127\.0\.0\.1:1; start one with `wpa dev`"):
        await Client.connect("nats://user:secret@127.0.0.1:1")


async def test_a_server_that_refuses_us_says_so_and_no_password_is_shown(tmp_path: Path) -> None:
    (tmp_path / "ports").mkdir()
    config = {
        "host": "127.0.0.1",
        "port": -1,
        "ports_file_dir": str(tmp_path / "ports"),
        "authorization": {"user": "u", "password": "right"},
    }
    (tmp_path / "c.json").write_text(json.dumps(config))
    server = subprocess.Popen([find_binary(), "-c", str(tmp_path / "c.json")], stderr=subprocess.DEVNULL)
    try:
        ports = tmp_path / "ports" / f"nats-server_{server.pid}.ports"
        async with asyncio.timeout(30):
            while not ports.exists() or not ports.read_text().endswith("}"):
                await asyncio.sleep(0.01)
        url = json.loads(ports.read_text())["nats"][0]
        async with asyncio.timeout(30):
            with pytest.raises(Unavailable, match="Authorization") as refused:
                await Client.connect(url.replace("//", "//u:wrong@"))
        assert "wrong" not in str(refused.value)
        async with await Client.connect(url.replace("//", "//u:right@")):
            pass
    finally:
        server.kill()
        server.wait()


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("nats://u:p@h:1", "nats://h:1"),
        ("nats://token@h:1,nats://u:p@i:2", "nats://h:1,nats://i:2"),
        ("nats://h:1/", "nats://h:1/"),
        ("nats://u:p@ss/w@h:1,tls://t/o@i:2", "nats://h:1,tls://i:2"),
        ("nats://u:p,w@h:1, tls://i:2", "nats://h:1, tls://i:2"),
        ("u:p@h:1", "h:1"),
        ("h:1,i:2", "h:1,i:2"),
    ],
)
def test_urls_without_their_secrets(url: str, shown: str) -> None:
    assert without_password(url) == shown


async def test_a_port_that_is_none_is_no_server() -> None:
    with pytest.raises(Unavailable, match=r"no NATS server answers at nats://127\.0\.0\.1:99999"):
        await Client.connect("nats://127.0.0.1:99999")


async def test_a_start_that_times_out_is_repeated_with_the_same_id(client: Client, worker: Worker) -> None:
    worker.answers["start"] = {
        "ok": True,
        "execution_id": "e",
        "workflow_id": "w",
        "version": "1",
        "duplicate": True,
    }
    worker.deaf = 1
    result = await client.start("w", {"n": 1})
    assert result.duplicate
    first, *more = [body for _, body in worker.asked]
    assert more
    assert all(body == first for body in more)
    assert first["execution_id"]


@pytest.mark.parametrize("value", [float("nan"), {"a": [1, float("inf")]}, ({"b": float("-inf")},)])
async def test_what_is_not_json_is_not_sent_as_null(client: Client, worker: Worker, value: Any) -> None:
    with pytest.raises(ValueError, match="not JSON"):
        await client.start("w", value)
    with pytest.raises(ValueError, match="not JSON"):
        await client.start("w", {}, variables={"v": value})
    assert worker.asked == []


async def test_an_input_without_end_is_refused(client: Client, worker: Worker) -> None:
    deep: list[Any] = []
    deep.append(deep)
    with pytest.raises(OverLimit, match="too deeply"):
        await client.start("w", deep)


@pytest.mark.parametrize("name", ["*", ">", "a.b", "", "a b", "e1\r\nPUB x 0"])
async def test_no_wildcard_gets_into_a_subject(client: Client, name: str) -> None:
    with pytest.raises(InvalidName):
        await client.result(name)
    with pytest.raises(InvalidName):
        await first(client.watch(name))


async def test_errors_of_the_api_are_raised_as_what_they_are(client: Client, worker: Worker) -> None:
    worker.answers["status"] = {"ok": False, "error": {"code": "unknown_execution", "message": "no e"}}
    with pytest.raises(TaskRejected, match="no e") as refused:
        await client.status("e")
    assert refused.value.code == "unknown_execution"


async def test_without_a_worker_nobody_waits(client: Client) -> None:
    with pytest.raises(Unavailable, match="wpa worker"):
        await client.result("e1")
    with pytest.raises(Unavailable, match="wpa worker"):
        await first(client.watch("e1"))


async def test_a_result_outlasts_its_worker(
    client: Client, worker: Worker, caplog: pytest.LogCaptureFixture
) -> None:
    worker.is_at("RUNNING")
    waiting = asyncio.create_task(client.result("e1"))
    while not worker.asked:
        await asyncio.sleep(0.01)
    await worker.leave()
    with caplog.at_level(logging.WARNING, "wpa.client"):
        async with asyncio.timeout(20):
            while not caplog.records:
                await asyncio.sleep(0.05)
    assert not waiting.done()
    worker.is_at("COMPLETED")
    await worker.come()
    async with asyncio.timeout(20):
        assert await waiting == {"status": "COMPLETED"}
    assert len(caplog.records) == 1
    assert "still waiting" in caplog.text


async def test_a_result_has_its_time(client: Client, worker: Worker) -> None:
    worker.is_at("RUNNING")
    with pytest.raises(TimeoutError):
        await client.result("e1", timeout_s=0.2)


async def test_a_watch_outlasts_its_worker_and_shows_each_event_once(client: Client, worker: Worker) -> None:
    worker.is_at("RUNNING", STARTED)
    events = client.watch("e1")
    async with asyncio.timeout(30):
        assert await anext(events) == STARTED
        await worker.leave()
        following = asyncio.ensure_future(first(events))
        await asyncio.sleep(2.5)
        assert not following.done()
        worker.is_at("COMPLETED", DONE)
        await worker.come()
        assert await following == DONE
        assert [one async for one in events] == []
    assert [body["after"] for verb, body in worker.asked if verb == "history"][-1] == 1


async def test_a_watch_fills_gaps_from_the_journal_and_drops_repeats(client: Client, worker: Worker) -> None:
    worker.is_at("RUNNING", STARTED)
    events = client.watch("e1")
    step, live = event("workflow_step_completed", 2), {"event": "step_started", "step": "a"}
    last = event("workflow_completed", 4)
    async with asyncio.timeout(20):
        assert await anext(events) == STARTED
        await worker.publish(STARTED)
        await worker.publish(live, live=True)
        await worker.publish(step)
        assert await anext(events) == live
        assert await anext(events) == step
        worker.is_at("COMPLETED", event("workflow_step_completed", 3), last)
        await worker.publish(last)  # 3 was missed
        assert [one["seq"] async for one in events] == [3, 4]


async def test_a_watch_of_all_shows_once_what_is_heard_and_read_back(client: Client, worker: Worker) -> None:
    worker.answers["events"] = {"ok": True, "events": [], "more": False, "next": 10}
    events = client.watch()
    step, live = event("workflow_step_completed", 2), {"event": "step_started", "step": "a"}
    last = event("workflow_completed", 4)
    async with asyncio.timeout(20):
        waiting = asyncio.ensure_future(first(events))
        while len(worker.asked) < 2:
            await asyncio.sleep(0.01)
        worker.answers["events"] = {"ok": True, "events": [step], "more": False, "next": 13}
        await worker.publish(STARTED, position=11)
        assert await waiting == STARTED
        assert await anext(events) == step  # nothing was heard for a while: it is looked
        assert worker.asked[-1] == ("events", {"after": 11})
        worker.answers["events"] = {"ok": True, "events": [], "more": False, "next": 13}
        await worker.publish(step, position=13)
        await worker.publish(live, live=True)
        assert await anext(events) == live
        third = event("workflow_step_completed", 3)
        worker.is_at("COMPLETED", third, last)
        await worker.publish(last, position=20)  # 3 was not passed on
        assert [await anext(events), await anext(events)] == [third, last]
        assert worker.asked[-1] == ("history", {"execution_id": "e1", "after": 2})


async def test_a_watch_of_all_goes_on_over_a_stream_that_was_made_anew(
    client: Client, worker: Worker
) -> None:
    worker.answers["events"] = {"ok": True, "events": [], "more": False, "next": 1_000}
    events = client.watch()
    async with asyncio.timeout(20):
        waiting = asyncio.ensure_future(first(events))
        while len(worker.asked) < 2:
            await asyncio.sleep(0.01)
        worker.answers["events"] = {"ok": True, "events": [], "more": False, "next": 0}
        while len(worker.asked) < 4:
            await asyncio.sleep(0.01)
        await worker.publish(STARTED, position=1)
        assert await waiting == STARTED


async def test_an_end_that_was_retried_is_none(client: Client, worker: Worker) -> None:
    failed, again = event("workflow_failed", 2), event("workflow_resumed", 3)
    worker.is_at("RUNNING", STARTED, failed, again)
    events = client.watch("e1")
    async with asyncio.timeout(20):
        assert [await anext(events) for _ in range(3)] == [STARTED, failed, again]
        last = event("workflow_completed", 4)
        await worker.publish(last)
        assert [one async for one in events] == [last]


@pytest.mark.parametrize("status", ["WAITING", "PAUSED"])
async def test_a_result_goes_on_over_waits_and_takes_a_cancel_for_an_end(
    client: Client, worker: Worker, status: str
) -> None:
    worker.is_at(status)
    waiting = asyncio.create_task(client.result("e1"))
    await asyncio.sleep(0.5)
    assert not waiting.done()
    worker.is_at("CANCELLED")
    await worker.publish(event("workflow_cancelled", 3))
    async with asyncio.timeout(10):
        assert await waiting == {"status": "CANCELLED"}


ASKS: dict[str, Callable[..., Awaitable[AskResult]]] = {
    "signal": lambda client, **more: client.signal("e1", "go", {"n": 1}, **more),
    "answer": lambda client, **more: client.reject("e1", "a", user="ada", **more),
    "pause": lambda client, **more: client.pause("e1", **more),
    "resume": lambda client, **more: client.resume("e1", **more),
    "cancel": lambda client, **more: client.cancel("e1", **more),
    "terminate": lambda client, **more: client.terminate("e1", **more),
    "retry": lambda client, **more: client.retry("e1", **more),
    "migrate": lambda client, **more: client.migrate("e1", "2", **more),
}


@pytest.mark.parametrize("verb", ASKS)
async def test_an_ask_that_times_out_is_repeated_as_the_same_ask(
    client: Client, worker: Worker, verb: str
) -> None:
    ask, named = ASKS[verb], "id" if verb == "signal" else "task_id"
    worker.answers[verb] = {"ok": True, "execution_id": "e1", "duplicate": False, "queued": True}
    worker.deaf = 1
    assert (await ask(client)).queued
    first, *more = [body for _, body in worker.asked]
    assert more
    assert all(body == first for body in more)
    assert first[named]
    await ask(client)
    await ask(client, id="mine")
    *_, another, last = [body for _, body in worker.asked]
    assert another[named] not in ("", first[named])
    assert last[named] == "mine"


async def test_a_rerun_keeps_the_old_input_unless_it_is_given_one(client: Client, worker: Worker) -> None:
    worker.answers["rerun"] = {
        "ok": True, "execution_id": "n", "workflow_id": "w", "version": "1", "forked_from": "e1", "duplicate": False,
    }  # fmt: skip
    await client.rerun("e1")
    await client.rerun("e1", input=None, from_step="a")
    (_, first), *_, (_, second) = worker.asked
    assert "input" not in first
    assert first["new_execution_id"]
    assert (second["input"], second["from_step"]) == (None, "a")


async def test_a_history_of_many_pages(client: Client, worker: Worker) -> None:
    pages = {0: [1, 2], 2: [3, 4], 4: []}

    async def answer(message: Msg) -> None:
        after = json.loads(message.data)["after"]
        page = [event("e", seq) for seq in pages[after]]
        await message.respond(json.dumps({"ok": True, "events": page, "more": after < 2}).encode())

    await worker.leave()
    await worker.connection.subscribe(f"workflow.api.{worker.tenant}.history", cb=answer)
    await flush(worker.connection)
    assert [one["seq"] for one in await client.history("e1")] == [1, 2, 3, 4]


async def test_flush_comes_back_when_the_server_knows_what_is_listened_to(nats_server: NatsServer) -> None:
    """nats-py's own lets one message in ten be missed."""
    listener, speaker = await nats.connect(nats_server.url), await nats.connect(nats_server.url)
    for number in range(200):
        heard = asyncio.Event()

        async def hear(message: Msg, heard: asyncio.Event = heard) -> None:
            heard.set()

        await listener.subscribe(f"flush.{number}", cb=hear)
        await flush(listener)
        await speaker.publish(f"flush.{number}", b"")
        await flush(speaker)
        async with asyncio.timeout(5):
            await heard.wait()
        await asyncio.sleep(0.003)  # the server reads at once where it has nothing else to do
    await listener.close()
    await speaker.close()
