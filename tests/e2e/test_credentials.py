"""Credentials that change under a worker that runs."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.processes import Wpa
from tests.servers import NatsServer
from tests.waiting import until, wait_for
from wpa.cli.common import EXIT_UNAVAILABLE
from wpa.client import Client

NAP: dict[str, Any] = {"id": "nap", "uses": "core.sleep", "with": {"for": "1s"}}
DEFINITION: dict[str, Any] = {"id": "w", "version": "1", "steps": [NAP]}


def passwords(worker: str = "p") -> dict[str, Any]:
    return {"users": [{"user": "w", "password": worker}, {"user": "c", "password": "c"}]}


@pytest.fixture
def worker(server: NatsServer, tmp_path: Path) -> Iterator[Wpa]:
    server.reload(passwords())
    url = server.url.replace("//", "//w:p@")
    worker = Wpa("worker", "--nats", url, "--ack-wait", "1", log=tmp_path / "worker.log").wait_ready()
    yield worker
    if worker.process.poll() is None:
        worker.kill()


async def test_a_worker_that_is_refused_for_a_while_goes_on(server: NatsServer, worker: Wpa) -> None:
    async with await Client.connect(server.url.replace("//", "//c:c@")) as client:
        await client.deploy(DEFINITION)
        await client.start("w", execution_id="before")
        await asyncio.to_thread(server.reload, passwords("other"))
        await until(lambda: "does not let us in: Authorization Violation" in worker.log.read_text())
        await asyncio.sleep(1)
        await asyncio.to_thread(server.reload, passwords())
        assert (await client.result("before", timeout_s=30))["status"] == "COMPLETED"
        await client.start("w", execution_id="after")
        assert (await client.result("after", timeout_s=30))["status"] == "COMPLETED"
    assert await asyncio.to_thread(worker.stop) == 0
    assert "Traceback" not in worker.log.read_text()


@pytest.mark.parametrize("away", [False, True])
def test_a_worker_without_its_server_stops_when_it_is_told_to(
    server: NatsServer, worker: Wpa, away: bool
) -> None:
    if away:
        server.kill()
    else:
        server.reload(passwords("other"))
    wait_for(lambda: ("reconnecting" if away else "does not let us in") in worker.log.read_text())
    assert worker.stop() == 0
    assert "Traceback" not in worker.log.read_text()


async def test_who_watches_and_is_refused_is_told(server: NatsServer, worker: Wpa, tmp_path: Path) -> None:
    url = server.url.replace("//", "//c:c@")
    async with await Client.connect(url) as client:
        await client.deploy(DEFINITION | {"steps": [NAP | {"with": {"for": "1h"}}]})
        await client.start("w", execution_id="long")
    watching = Wpa("watch", "long", "--json", "--nats", url, log=tmp_path / "watch.log")
    try:
        await until(lambda: "workflow_started" in watching.log.read_text())
        await asyncio.to_thread(server.reload, {"users": [{"user": "w", "password": "p"}]})
        assert await asyncio.to_thread(watching.process.wait, 30) == EXIT_UNAVAILABLE
        said = watching.log.read_text()
        assert "does not let us in: Authorization Violation" in said
        assert "Traceback" not in said
    finally:
        if watching.process.poll() is None:
            watching.kill()
