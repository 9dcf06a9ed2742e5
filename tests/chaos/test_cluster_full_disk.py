"""Three nodes, R3: one of them has a full disk, gives JetStream up until it is restarted, and is not missed."""

from __future__ import annotations

import asyncio
import json
import random
import socket
from pathlib import Path
from urllib.parse import urlsplit

import nats
import pytest

from tests.chaos.cluster import Cluster
from tests.chaos.site import Site
from tests.chaos.test_faults import DISK_BYTES, SECONDS, storm
from tests.volume import Volume, on_linux
from wpa.client import Client

pytestmark = [pytest.mark.timeout(SECONDS + 420), on_linux]

SMALL = 0
"""The node on the small disk."""


async def test_the_disk_of_a_node_is_full(tmp_path: Path) -> None:
    with Volume(tmp_path / "volume", DISK_BYTES) as volume:
        (tmp_path / f"n{SMALL}").symlink_to(volume.path)
        async with Cluster(tmp_path) as cluster, Site(tmp_path, cluster.url) as site:

            async def fault(chance: random.Random) -> None:
                await asyncio.to_thread(volume.fill)
                await asyncio.sleep(chance.uniform(1, 5))
                await asyncio.to_thread(volume.make_room)
                await asyncio.sleep(chance.uniform(0, 1))
                await cluster.restart(SMALL, 0.2)
                await cluster.back(SMALL)

            await storm(site, "the disk of a node is full", fault)


async def test_a_worker_does_its_work_through_a_node_that_has_given_jetstream_up(tmp_path: Path) -> None:
    """Where it connects is chance, and the other nodes are well."""
    with Volume(tmp_path / "volume") as volume:
        (tmp_path / f"n{SMALL}").symlink_to(volume.path)
        async with Cluster(tmp_path) as cluster, Site(tmp_path, cluster.url) as site:
            small, *others = cluster.url.split(",")
            first = await asyncio.to_thread(site.start_worker)  # makes the streams
            await asyncio.to_thread(volume.fill)
            async with asyncio.timeout(60):
                while await asyncio.to_thread(has_jetstream, small):
                    await write_a_lot(others)
            await asyncio.to_thread(site.start_worker, small)
            await asyncio.to_thread(first.kill)
            async with await Client.connect(others[0]) as client:
                await client.deploy({"id": "w", "version": "1", "steps": [{"id": "a", "uses": "core.noop"}]})
                await client.start("w", {}, execution_id="x")
                done = await client.result("x", timeout_s=60)
            assert done["status"] == "COMPLETED"


def has_jetstream(url: str) -> bool:
    """Whether a server says that it has."""
    address = urlsplit(url)
    with socket.create_connection((address.hostname, address.port), timeout=5) as connection:
        line = connection.makefile("rb").readline()
    return bool(json.loads(line.removeprefix(b"INFO ")).get("jetstream"))


async def write_a_lot(servers: list[str]) -> None:
    """More than what the last pages of files have room for, into streams that nobody reads."""
    connection = await nats.connect(servers)
    for _ in range(100):
        await connection.publish("workflow.dlq.acme", b"x" * 1000)
    await connection.close()
