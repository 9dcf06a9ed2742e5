from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.contract.worlds import MemoryWorld, NatsWorld, World
from wpa.ports import Ports


@pytest.fixture(params=["memory", "nats"])
async def world(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    """Every test of the contract runs twice: in memory, and on a real nats-server."""
    world: World
    if request.param == "memory":
        world = MemoryWorld()
    else:
        world = NatsWorld(request.getfixturevalue("nats_server").url)
    yield world
    await world.close()


@pytest.fixture
async def ports(world: World) -> Ports:
    return await world.connect()
