"""Three nodes, R3: whichever fails, and however, nothing is lost."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest

from tests.chaos.cluster import NODES, Cluster
from tests.chaos.site import Site
from tests.chaos.test_faults import SECONDS, storm

pytestmark = pytest.mark.timeout(SECONDS + 420)


async def test_the_leader_is_killed(tmp_path: Path) -> None:
    async with Cluster(tmp_path) as cluster, Site(tmp_path, cluster.url) as site:

        async def fault(chance: random.Random) -> None:
            await cluster.restart(await cluster.leader(), chance.uniform(0, 3))
            await asyncio.sleep(3)

        await storm(site, "the leader is killed", fault)


async def test_a_node_is_cut_off_and_comes_back(tmp_path: Path) -> None:
    """There is one worker only: nobody else takes what it does not hear of."""
    async with Cluster(tmp_path) as cluster, Site(tmp_path, cluster.url) as site:

        async def fault(chance: random.Random) -> None:
            await cluster.isolate(chance.choice(NODES), chance.uniform(1, 6))
            await asyncio.sleep(2)

        await storm(site, "a node is cut off", fault, workers=1)


async def test_all_nodes_are_restarted_one_after_the_other(tmp_path: Path) -> None:
    async with Cluster(tmp_path) as cluster, Site(tmp_path, cluster.url) as site:
        node = 0

        async def fault(chance: random.Random) -> None:
            nonlocal node
            await cluster.restart(node, 0.5)
            await cluster.back(node)  # or two would be away at once, and nobody left to agree with
            node = (node + 1) % len(NODES)
            await asyncio.sleep(1)

        await storm(site, "nodes are restarted", fault)
