"""A worker dies at a numbered point; another takes over: each execution ends as if nothing had happened.

``make chaos`` goes through every point; by default it is a choice of them, another for each kind of execution.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from tests.chaos.load import KINDS, check_end, deploy, patiently, start
from tests.chaos.site import CrashWorker, Site
from wpa.client import Client

EVERY = int(os.environ.get("CHAOS_EVERY", "13"))
"""Of so many points, one is tried."""
AT_ONCE = 4


@pytest.mark.timeout(1_200)
@pytest.mark.parametrize("kind", KINDS)
async def test_a_worker_dies_at_any_point(kind: str, tmp_path: Path) -> None:
    points = await passed(tmp_path / "undisturbed", kind)
    assert len(points) > 8, points
    chosen = range(KINDS.index(kind) % EVERY, len(points), EVERY)
    room = asyncio.Semaphore(AT_ONCE)

    async def one(number: int) -> None:
        async with room:
            try:
                await crash(tmp_path / f"at-{number}", kind, number)
            except Exception as error:
                raise AssertionError(
                    f"a worker died at point {number}, {points[number]!r}: {error}"
                ) from error

    await asyncio.gather(*(one(number) for number in chosen))


async def passed(folder: Path, kind: str) -> list[str]:
    """The points that a worker passes by, when nothing happens."""
    log = folder / "points"
    async with Site(folder) as site:
        await asyncio.to_thread(site.start_crashing, -1, log)
        async with await Client.connect(site.server.url) as client:
            await deploy(client)
            await start(client, kind, "x")
            await check_end(client, kind, "x", site.ledger)
    return log.read_text().splitlines()


async def crash(folder: Path, kind: str, number: int) -> None:
    async with Site(folder) as site:
        worker = await asyncio.to_thread(site.start_crashing, number)
        async with await Client.connect(site.server.url) as client:
            await deploy(client)
            started = asyncio.create_task(start(client, kind, "x"))
            await died(worker, client)
            await asyncio.to_thread(site.start_worker)
            await started
            await check_end(client, kind, "x", site.ledger)


async def died(worker: CrashWorker, client: Client) -> None:
    """Wait until it did; or until all is over: the order of what happens may differ a little each time."""
    while worker.alive:
        try:
            status = await patiently(lambda: client.status("x"), within_s=0.5)
        except Exception:
            status = {}
        if status.get("finished_at"):
            return
        await asyncio.sleep(0.05)
