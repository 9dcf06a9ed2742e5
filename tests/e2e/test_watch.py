"""Who watches all executions sees every event, whatever becomes of the connection."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.e2e.processes import Wpa
from tests.servers import NatsServer
from wpa.client import Client, feed

QUICK = {"id": "quick", "version": "1", "steps": [{"id": "a", "uses": "core.noop"}]}
AWAY_S = 1.5


class Watching:
    """A client of its own that watches all, and what it has seen."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.seen: list[tuple[str, int]] = []
        self.completed: list[str] = []
        self.task = asyncio.create_task(self._watch())

    async def _watch(self) -> None:
        async for event in self.client.watch():
            if "seq" in event:
                self.seen.append((event["execution_id"], event["seq"]))
            if event["event"] == "workflow_completed":
                self.completed.append(event["execution_id"])

    async def until_completed(self, *executions: str) -> None:
        async with asyncio.timeout(30):
            while not set(executions) <= set(self.completed):
                await asyncio.sleep(0.02)

    def lose_connection(self) -> None:
        connection: Any = self.client._nc
        connection.options["reconnect_time_wait"] = AWAY_S
        connection._current_server.last_attempt = time.monotonic()  # it waits from then on
        connection._transport.close()


async def run(client: Client, *executions: str) -> None:
    for execution in executions:
        await client.start("quick", execution_id=execution)
    for execution in executions:
        await client.result(execution, timeout_s=30)


async def test_what_comes_while_the_connection_is_lost_is_read_back(
    server: NatsServer, start_worker: Callable[..., Wpa], client: Client
) -> None:
    start_worker()
    await client.deploy(QUICK)
    await run(client, "before")
    async with await Client.connect(server.url) as other:
        watching = Watching(other)
        await asyncio.sleep(0.3)
        await run(client, "first")
        await watching.until_completed("first")
        for times in range(2):
            names = [f"e{times}-{number}" for number in range(10)]
            watching.lose_connection()
            await run(client, *names)
            assert not set(names) <= set(watching.completed)
            await watching.until_completed(*names)
        await run(client, "last")
        await watching.until_completed("last")
        assert len(set(watching.seen)) == len(watching.seen)
        for execution in {execution for execution, _ in watching.seen}:
            seqs = [seq for name, seq in watching.seen if name == execution]
            assert seqs == list(range(1, len(seqs) + 1))
        assert "before" not in {execution for execution, _ in watching.seen}
        watching.task.cancel()


async def test_what_comes_before_the_first_event_is_read_back_too(
    server: NatsServer, start_worker: Callable[..., Wpa], client: Client
) -> None:
    start_worker()
    await client.deploy(QUICK)
    async with await Client.connect(server.url) as other:
        watching = Watching(other)
        await asyncio.sleep(0.3)
        watching.lose_connection()
        await run(client, "missed")
        await watching.until_completed("missed")
        watching.task.cancel()


async def test_who_reads_slowly_misses_nothing_and_does_not_hoard(
    server: NatsServer, start_worker: Callable[..., Wpa], client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed, "KEPT_BYTES_MAX", 50_000)
    start_worker()
    await client.deploy(QUICK)
    async with await Client.connect(server.url) as other:
        events = other.watch()
        first = asyncio.ensure_future(anext(events))
        await asyncio.sleep(0.3)
        names = [f"e{number}" for number in range(40)]
        await run(client, *names)  # some 120 events, of which there is room for twenty
        seen = [await first]
        async with asyncio.timeout(30):
            while (seen[-1]["execution_id"], seen[-1]["event"]) != (names[-1], "workflow_completed"):
                seen.append(await anext(events))
        stored = [(event["execution_id"], event["seq"]) for event in seen if "seq" in event]
        assert stored == [
            (event["execution_id"], event["seq"])
            for event in (await client.request("events", {"after": 0}))["events"]
        ]


async def test_where_no_worker_can_tell_what_was_missed_it_is_logged(
    server: NatsServer, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    async with await Client.connect(server.url) as other:
        watching = Watching(other)
        await asyncio.sleep(2)
        with caplog.at_level(logging.WARNING, "wpa.client"):
            watching.lose_connection()
            async with asyncio.timeout(20):
                while not caplog.records:
                    await asyncio.sleep(0.05)
        assert "events may have been missed" in caplog.text
        assert "no worker answers" in caplog.text
        watching.task.cancel()
