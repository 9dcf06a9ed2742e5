"""Faults under load: afterwards each execution has ended as if nothing had happened, and the judge says so.

Each test is one kind of fault, again and again for ``CHAOS_SECONDS``, while executions of every kind are
started and go on. ``make chaos`` takes its time; by default it is a few seconds each.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import nats
import pytest

from tests.chaos.load import CANARIES, KINDS, Load
from tests.chaos.proxy import Proxy
from tests.chaos.site import ACK_WAIT_S, Site
from tests.chaos.witness import Witness
from tests.volume import Volume, on_linux
from tests.waiting import until

SECONDS = float(os.environ.get("CHAOS_SECONDS", "4"))
SEED = int(os.environ.get("CHAOS_SEED", "20261121"))
ENDS_WITHIN_S = 120.0
DISK_BYTES = int((64 + 0.5 * SECONDS) * 1024 * 1024)
"""Room for what so long a storm leaves behind."""
AGAIN_WHILE_FULL = 0.3
"""How often the server is started again, too, where there is no room yet."""

Fault = Callable[[random.Random], Awaitable[None]]

pytestmark = pytest.mark.timeout(SECONDS + 420)


async def storm(
    site: Site,
    scenario: str,
    fault: Fault,
    *,
    workers: int = 2,
    afterwards: Callable[[str], Awaitable[None]] | None = None,
) -> None:
    """Load while ``fault`` happens again and again; then every execution is judged.

    Args:
        afterwards: what an operator does with the server, whose URL it gets, when all have ended.
    """
    missing = range(workers - len(site.workers))
    await asyncio.gather(*(asyncio.to_thread(site.start_worker) for _ in missing))
    async with Witness(site, scenario, CANARIES) as witness, Load(witness.caller, site.url) as load:
        try:
            async with load.going_on():
                chance = random.Random(SEED)
                until = asyncio.get_running_loop().time() + SECONDS
                async with asyncio.timeout(SECONDS + 120):
                    while asyncio.get_running_loop().time() < until:
                        await asyncio.sleep(chance.uniform(0.1, 1.0))
                        with witness.fault(scenario):
                            await fault(chance)
            await load.check_ends(ENDS_WITHIN_S)
            if afterwards is not None:
                await afterwards(site.url)
            facts = await witness.judge()
        except Exception as error:
            raise AssertionError(await witness.tell(error, SEED, load.started)) from error
        assert load.started >= len(KINDS)
        assert len(facts.journals()) >= load.started


async def test_workers_are_killed(tmp_path: Path) -> None:
    async with Site(tmp_path) as site:

        async def fault(chance: random.Random) -> None:
            place = chance.randrange(len(site.workers))
            await asyncio.to_thread(site.workers[place].kill)
            await asyncio.sleep(chance.uniform(0, 0.5))
            await asyncio.to_thread(site.start_worker, place=place)

        await storm(site, "workers are killed", fault)


async def test_the_server_is_killed(tmp_path: Path) -> None:
    async with Site(tmp_path) as site:

        async def fault(chance: random.Random) -> None:
            await asyncio.to_thread(site.server.kill)
            await asyncio.sleep(chance.uniform(0, 1.5))
            await asyncio.to_thread(site.server.start)
            await asyncio.sleep(1)

        await storm(site, "the server is killed", fault)


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

        await storm(site, "workers stand still", fault)


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

        await storm(site, "workers are stopped", fault)


async def test_the_network_fails(tmp_path: Path) -> None:
    """One worker is behind a bad line, the other is not: every kind of bad line, each at a site of its own."""
    async with asyncio.TaskGroup() as group:
        for what in ("cut", "refuse", "half_open", "drop_replies", "delay"):
            group.create_task(bad_line(tmp_path / what, what))


async def bad_line(folder: Path, what: str) -> None:
    async with Site(folder) as site, Proxy(site.server.port, SEED) as proxy:
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

        await storm(site, f"the network: {what}", fault)


@on_linux
async def test_the_disk_is_full(tmp_path: Path) -> None:
    """Not one byte of room: the server answers nothing to what it can't write, and has to be started again."""
    with Volume(tmp_path / "volume", DISK_BYTES) as volume:
        site = Site(tmp_path, store=volume.path / "data")

        async def fault(chance: random.Random) -> None:
            await asyncio.to_thread(volume.fill)
            await asyncio.sleep(chance.uniform(0.2, 4))
            if chance.random() < AGAIN_WHILE_FULL:
                await asyncio.to_thread(site.server.restart)
                await asyncio.sleep(chance.uniform(0, 1))
            await asyncio.to_thread(volume.make_room)
            await asyncio.sleep(chance.uniform(0, 1))
            await asyncio.to_thread(site.server.restart)
            await asyncio.sleep(1)

        async with site:
            await storm(site, "the disk is full", fault, afterwards=remove_what_was_acked)


async def remove_what_was_acked(url: str) -> None:
    """Remove from the work queues what is done. On a full disk, nats-server may store that a message was acked,
    and not that it was therefore removed: then it keeps the message, and never delivers it again."""
    connection = await nats.connect(url)
    jetstream = connection.jetstream()

    async def all_acked(stream: str) -> bool:
        consumers = await jetstream.consumers_info(stream)
        return not any(consumer.num_pending or consumer.num_ack_pending for consumer in consumers)

    for stream in ("WPA_TASKS", "WPA_TIMERS"):
        await until(partial(all_acked, stream))
        for consumer in await jetstream.consumers_info(stream):
            await jetstream.purge_stream(stream, subject=consumer.config.filter_subject)
    await connection.close()


async def test_the_store_is_full(tmp_path: Path) -> None:
    """The server's own limit is reached: it refuses what there is no room for, at once."""
    async with Site(tmp_path) as site:
        roomy = dict(site.server.jetstream)

        async def fault(chance: random.Random) -> None:
            site.server.jetstream = {**roomy, "max_file_store": 1}
            await asyncio.to_thread(site.server.restart)
            await asyncio.sleep(chance.uniform(0.5, 2))
            site.server.jetstream = roomy
            await asyncio.to_thread(site.server.restart)
            await asyncio.sleep(1)

        await storm(site, "the store is full", fault)
