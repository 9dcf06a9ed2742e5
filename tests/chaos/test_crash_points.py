"""A worker dies at a numbered point; another takes over: each execution ends as if nothing had happened, and
the judge finds nothing.

One in ``CHAOS_EVERY`` points is tried, others for each kind of execution: one in 13 as part of the test suite,
one in three by ``make chaos``, and every single one by ``make chaos EVERY=1``.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from tests.chaos.load import CANARIES, KINDS, WORK_S, check_end, deploy, start
from tests.chaos.site import CrashWorker, Site
from tests.chaos.witness import Witness
from wpa.client import Client

EVERY = int(os.environ.get("CHAOS_EVERY", "13"))
"""Of so many points, one is tried."""
AT_ONCE = 6
ENDS_WITHIN_S = 120.0
(TENANT, *_) = CANARIES


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
                await crash(tmp_path / f"at-{number}", kind, number, points[number])
            except Exception as error:
                raise AssertionError(
                    f"a worker died at point {number}, {points[number]!r}: {error}"
                ) from error

    async with asyncio.TaskGroup() as group:
        for number in chosen:
            group.create_task(one(number))


async def passed(folder: Path, kind: str) -> list[str]:
    """The points that a worker passes by, when nothing happens."""
    log = folder / "points"
    async with Site(folder) as site:
        await asyncio.to_thread(site.start_crashing, points=log)
        async with Witness(site, "undisturbed") as witness:
            await deploy(witness.caller, TENANT)
            await run(witness, site, kind)
    return log.read_text().splitlines()


async def crash(folder: Path, kind: str, number: int, point: str) -> None:
    async with Site(folder) as site:
        worker = await asyncio.to_thread(site.start_crashing, number)
        async with Witness(site, f"a worker dies at a point: {kind}") as witness:
            await deploy(witness.caller, TENANT)
            running = asyncio.create_task(run(witness, site, kind))
            with witness.fault(f"a worker dies at {point}"):
                await died(worker, running)
                await asyncio.to_thread(site.start_crashing)
            await running


async def run(witness: Witness, site: Site, kind: str) -> None:
    """One execution, from its start to the judge."""
    await start(witness.caller, TENANT, kind, "x", WORK_S if kind == "paused" else 0)
    async with await Client.connect(site.url, TENANT) as client:
        await check_end(witness.caller, client, kind, "x", ENDS_WITHIN_S)
    await witness.judge()


async def died(worker: CrashWorker, running: asyncio.Task[None]) -> None:
    """Wait until it did; or until all is over: the order of what happens may differ a little each time."""
    while worker.alive and not running.done():
        await asyncio.sleep(0.02)
