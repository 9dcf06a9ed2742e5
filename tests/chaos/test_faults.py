"""Faults under load: afterwards each execution has ended as if nothing had happened.

Each test is one kind of fault, again and again for ``CHAOS_SECONDS``, while executions of every kind are
started and go on. ``make chaos`` takes its time; by default it is a few seconds each.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from tests.chaos.load import KINDS, check_end, deploy, start
from tests.chaos.proxy import Proxy
from tests.chaos.site import ACK_WAIT_S, Site
from wpa.client import Client

SECONDS = float(os.environ.get("CHAOS_SECONDS", "4"))
SEED = int(os.environ.get("CHAOS_SEED", "20261121"))
STARTS_PER_S = 8.0
ENDS_WITHIN_S = 60.0

Fault = Callable[[random.Random], Awaitable[None]]

pytestmark = pytest.mark.timeout(SECONDS + 240)


async def storm(site: Site, fault: Fault, *, workers: int = 2) -> None:
    """Load while ``fault`` happens again and again; then check every execution."""
    chance = random.Random(SEED)
    for _ in range(workers - len(site.workers)):
        await asyncio.to_thread(site.start_worker)
    async with await Client.connect(site.url) as client:
        await deploy(client)
        starting: dict[str, asyncio.Task[None]] = {}
        over = asyncio.Event()
        loading = asyncio.create_task(load(client, starting, over))
        try:
            async with asyncio.timeout(SECONDS + 120):
                until = asyncio.get_running_loop().time() + SECONDS
                while asyncio.get_running_loop().time() < until:
                    await asyncio.sleep(chance.uniform(0.1, 1.0))
                    await fault(chance)
        finally:
            over.set()
            await loading
        await asyncio.gather(*starting.values())
        try:
            await asyncio.gather(
                *(
                    check_end(client, name.partition("-")[0], name, site.ledger, ENDS_WITHIN_S)
                    for name in starting
                )
            )
        except Exception as error:
            raise AssertionError(f"seed {SEED}, {len(starting)} executions: {error!r}") from error
        assert len(starting) >= len(KINDS)


async def load(client: Client, starting: dict[str, asyncio.Task[None]], over: asyncio.Event) -> None:
    while not over.is_set():
        kind = KINDS[len(starting) % len(KINDS)]
        name = f"{kind}-{len(starting)}"
        starting[name] = asyncio.create_task(start(client, kind, name))
        await asyncio.sleep(1 / STARTS_PER_S)


async def test_workers_are_killed(tmp_path: Path) -> None:
    async with Site(tmp_path) as site:

        async def fault(chance: random.Random) -> None:
            place = chance.randrange(len(site.workers))
            await asyncio.to_thread(site.workers[place].kill)
            await asyncio.sleep(chance.uniform(0, 0.5))
            await asyncio.to_thread(site.start_worker, place=place)

        await storm(site, fault)


async def test_the_server_is_killed(tmp_path: Path) -> None:
    async with Site(tmp_path) as site:

        async def fault(chance: random.Random) -> None:
            await asyncio.to_thread(site.server.kill)
            await asyncio.sleep(chance.uniform(0, 1.5))
            await asyncio.to_thread(site.server.start)
            await asyncio.sleep(1)

        await storm(site, fault)


async def test_workers_stand_still_for_longer_than_their_lease(tmp_path: Path) -> None:
    """A zombie that comes back must not do harm."""
    async with Site(tmp_path) as site:

        async def fault(chance: random.Random) -> None:
            victim = chance.choice(site.workers).process
            victim.send_signal(signal.SIGSTOP)
            try:
                await asyncio.sleep(chance.uniform(0.5, 3) * ACK_WAIT_S)
            finally:
                victim.send_signal(signal.SIGCONT)

        await storm(site, fault)


async def test_workers_are_asked_to_stop_one_after_the_other(tmp_path: Path) -> None:
    """A rolling restart: what a worker holds is handed over, nothing waits for a lease to run out."""
    async with Site(tmp_path) as site:
        place = 0

        async def fault(chance: random.Random) -> None:
            nonlocal place
            old = site.workers[place]
            await asyncio.to_thread(old.stop)
            await asyncio.to_thread(site.start_worker, place=place)
            place = (place + 1) % len(site.workers)

        await storm(site, fault)


@pytest.mark.parametrize("what", ["cut", "refuse", "half_open", "drop_replies", "delay"])
async def test_the_network_fails(tmp_path: Path, what: str) -> None:
    """One worker is behind a bad line, the other is not."""
    async with Site(tmp_path) as site, Proxy(site.server.port, SEED) as proxy:
        await asyncio.to_thread(site.start_worker, proxy.url)

        async def fault(chance: random.Random) -> None:
            if what == "delay":
                proxy.delay_s = 0.05
            else:
                getattr(proxy, what)()
            await asyncio.sleep(chance.uniform(0.2, 2.5))
            if what in ("half_open", "drop_replies"):
                proxy.cut()
            proxy.heal()

        await storm(site, fault)


async def test_the_disk_is_full(tmp_path: Path) -> None:
    """Nothing can be stored any more; when there is room again, all goes on."""
    async with Site(tmp_path) as site:
        roomy = dict(site.server.jetstream)

        async def fault(chance: random.Random) -> None:
            site.server.jetstream = {**roomy, "max_file_store": 1}
            await asyncio.to_thread(site.server.restart)
            await asyncio.sleep(chance.uniform(0.5, 2))
            site.server.jetstream = roomy
            await asyncio.to_thread(site.server.restart)
            await asyncio.sleep(1)

        await storm(site, fault)
