"""Hostile steps: the worker survives, or is replaced; the step fails by its policy; nobody else notices; and
the judge finds nothing."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.load import PATIENCE_S, acknowledged
from tests.chaos.site import Site
from tests.chaos.witness import Witness
from tests.checker.calls import Caller
from tests.e2e.processes import Wpa
from tests.waiting import patiently
from wpa.client import Client
from wpa.model.limits import Limits

TENANT = "bad"
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
    "fork_here": ("COMPLETED", ""),
    "liar": ("COMPLETED", ""),
    "block": ("COMPLETED", ""),
}
"""How each ends, and with which type of error."""


async def begin(caller: Caller, name: str) -> None:
    """A plan of one hostile step, and an execution of it."""
    step: dict[str, Any] = {"id": "bad", "uses": f"hostile.{name}"}
    step["retry"] = {"max_attempts": 2, "backoff": {"initial": "50ms"}}
    if name.startswith("hang"):
        step["timeout"] = "500ms"
    await acknowledged(caller, "deploy", TENANT, "", document={"id": name, "version": "1", "steps": [step]})
    assert (await caller.start(TENANT, name, {}, name, PATIENCE_S)).outcome == "ok"


async def neighbour(caller: Caller, client: Client, over: asyncio.Event) -> int:
    """Another tenant's executions, one after the other, one at least: how many there were."""
    steps = [{"id": "a", "uses": "core.echo"}, {"id": "b", "uses": "core.noop", "needs": ["a"]}]
    document = {"id": "good", "version": "1", "steps": steps}
    await acknowledged(caller, "deploy", client.tenant, "", document=document)
    count = 0
    while not (count and over.is_set()):
        name = f"good-{count}"
        assert (await caller.start(client.tenant, "good", {}, name, PATIENCE_S)).outcome == "ok"
        done = await patiently(lambda n=name: client.result(n, timeout_s=60))
        assert done["status"] == "COMPLETED"
        count += 1
        await asyncio.sleep(0.05)
    return count


def start(site: Site) -> Wpa:
    return site.start_worker(arguments=("--flows", HOSTILE))


@pytest.mark.timeout(300)
async def test_all_that_can_be_survived_is(tmp_path: Path) -> None:
    async with Site(tmp_path) as site:
        workers = await asyncio.gather(*(asyncio.to_thread(start, site) for _ in range(2)))
        async with (
            Witness(site, "hostile steps") as witness,
            await Client.connect(site.url, TENANT) as client,
            await Client.connect(site.url, "good") as good,
        ):
            over = asyncio.Event()
            beside = asyncio.create_task(neighbour(witness.caller, good, over))
            with witness.fault("hostile steps"):
                for name in ENDS:
                    await begin(witness.caller, name)
                found = {
                    name: await patiently(lambda n=name: client.result(n, timeout_s=60)) for name in ENDS
                }
            over.set()
            assert await beside >= 2
            await witness.judge()
        ends = {name: (one["status"], (one["error"] or {}).get("type", "")) for name, one in found.items()}
        assert ends == ENDS
        assert all(worker.process.poll() is None for worker in workers), "a worker has died of it"
        assert [worker.stop() for worker in workers] == [0, 0]


@pytest.mark.timeout(300)
async def test_a_step_that_ends_its_worker_gives_up_before_there_is_none_left(tmp_path: Path) -> None:
    async with Site(tmp_path) as site:
        flows = {"WPA_FLOWS": HOSTILE}
        worker = await asyncio.to_thread(site.start_crashing, env=flows)
        async with (
            Witness(site, "a step ends its worker") as witness,
            await Client.connect(site.url, TENANT) as client,
            await Client.connect(site.url, "good") as good,
        ):
            over = asyncio.Event()
            beside = asyncio.create_task(neighbour(witness.caller, good, over))
            await begin(witness.caller, "segfault")
            ending = asyncio.create_task(patiently(lambda: client.result("segfault", timeout_s=120)))
            deaths = 0
            while not ending.done():
                if not worker.alive:
                    deaths += 1
                    with witness.fault("its worker is dead"):
                        worker = await asyncio.to_thread(site.start_crashing, env=flows)
                await asyncio.sleep(0.1)
            found = await ending
            over.set()
            assert await beside
            await witness.judge()
        assert (found["status"], found["error"]["type"]) == ("FAILED", "WorkerLost")
        assert 2 <= deaths <= LOST_MAX + 1
