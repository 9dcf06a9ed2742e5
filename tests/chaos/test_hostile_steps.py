"""Hostile steps: the worker survives, or is replaced; the step fails by its policy; nobody else notices."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.load import patiently
from tests.chaos.site import Site
from tests.e2e.processes import Wpa
from wpa.client import Client
from wpa.model.limits import Limits

LOST_MAX = Limits().lost_attempts_max
HOSTILE = str(Path(__file__).with_name("hostile.py"))
ENDS: dict[str, tuple[str, str]] = {
    "hang": ("FAILED", "Timeout"),
    "hang_thread": ("FAILED", "Timeout"),
    "hang_apart": ("FAILED", "Timeout"),
    "segfault_apart": ("FAILED", "ProcessDied"),
    "exit": ("FAILED", "SystemExit"),
    "unserialisable": ("FAILED", "InvalidOutput"),
    "cyclic": ("FAILED", "InvalidOutput"),
    "huge": ("FAILED", "OutputTooLarge"),
    "raiser": ("FAILED", "Worse"),
    "base": ("FAILED", "BaseException"),
    "leak": ("COMPLETED", ""),
    "fork": ("COMPLETED", ""),
    "liar": ("COMPLETED", ""),
    "block": ("COMPLETED", ""),
}
"""How each ends, and with which type of error."""


async def deploy(client: Client, name: str) -> None:
    step: dict[str, Any] = {"id": "bad", "uses": f"hostile.{name}"}
    step["retry"] = {"max_attempts": 2, "backoff": {"initial": "50ms"}}
    if name.startswith("hang"):
        step["timeout"] = "500ms"
    await client.deploy({"id": name, "version": "1", "steps": [step]})


async def neighbour(client: Client, over: asyncio.Event) -> list[float]:
    """Another tenant's executions, one after the other, one at least: how long each took, in seconds."""
    steps = [{"id": "a", "uses": "core.echo"}, {"id": "b", "uses": "core.noop", "needs": ["a"]}]
    await patiently(lambda: client.deploy({"id": "good", "version": "1", "steps": steps}))
    took = []
    while not (took and over.is_set()):
        began = asyncio.get_running_loop().time()
        name = f"good-{len(took)}"
        await patiently(lambda n=name: client.start("good", {}, execution_id=n))
        done = await patiently(lambda n=name: client.result(n, timeout_s=60))
        assert done["status"] == "COMPLETED"
        took.append(asyncio.get_running_loop().time() - began)
        await asyncio.sleep(0.05)
    return took


def start(site: Site, place: int | None = None) -> Wpa:
    return site.start_worker(arguments=("--flows", HOSTILE), place=place)


@pytest.mark.timeout(180)
async def test_all_that_can_be_survived_is(tmp_path: Path) -> None:
    async with Site(tmp_path) as site:
        workers = [await asyncio.to_thread(start, site) for _ in range(2)]
        async with await Client.connect(site.url) as client, await Client.connect(site.url, "good") as good:
            over = asyncio.Event()
            beside = asyncio.create_task(neighbour(good, over))
            for name in ENDS:
                await deploy(client, name)
                await client.start(name, {}, execution_id=name)
            found = {name: await patiently(lambda n=name: client.result(n, timeout_s=60)) for name in ENDS}
            over.set()
            took = await beside
        ends = {name: (one["status"], (one["error"] or {}).get("type", "")) for name, one in found.items()}
        assert ends == ENDS
        assert len(took) >= 2
        assert all(worker.process.poll() is None for worker in workers), "a worker has died of it"
        assert [worker.stop() for worker in workers] == [0, 0]


@pytest.mark.timeout(180)
async def test_a_step_that_ends_its_worker_gives_up_before_there_is_none_left(tmp_path: Path) -> None:
    async with Site(tmp_path) as site:
        await asyncio.to_thread(start, site)
        async with await Client.connect(site.url) as client, await Client.connect(site.url, "good") as good:
            over = asyncio.Event()
            beside = asyncio.create_task(neighbour(good, over))
            await deploy(client, "segfault")
            await client.start("segfault", {}, execution_id="x")
            ending = asyncio.create_task(patiently(lambda: client.result("x", timeout_s=120)))
            deaths = 0
            while not ending.done():
                if site.workers[0].process.poll() is not None:
                    deaths += 1
                    await asyncio.to_thread(start, site, 0)
                await asyncio.sleep(0.1)
            found = await ending
            over.set()
            assert await beside
        assert (found["status"], found["error"]["type"]) == ("FAILED", "WorkerLost")
        assert 2 <= deaths <= LOST_MAX + 1
