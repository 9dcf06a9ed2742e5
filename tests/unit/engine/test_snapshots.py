"""The snapshot that is kept is the newest, whoever writes it, and whenever."""

from __future__ import annotations

from tests.unit.engine.starts import World
from wpa.engine.snapshots import Keeper
from wpa.model.state import State, decode_state


def state(seq: int) -> State:
    return State(
        tenant="t",
        workflow="w",
        execution="x",
        version="1",
        definition_hash="",
        start_hash="",
        created_at="",
        status="RUNNING",
        seq=seq,
    )


async def kept(world: World) -> int:
    found = await world.services.ports.snapshots.get("t", "x")
    assert found is not None
    return decode_state(found[0]).seq


async def test_a_snapshot_that_comes_late_does_not_replace_a_newer_one() -> None:
    world = await World.open()
    slow, successor = Keeper(world.services), Keeper(world.services)
    await slow.keep(state(3))
    await successor.keep(state(7))
    assert await kept(world) == 7
    await slow.keep(state(5))
    assert await kept(world) == 7


async def test_a_newer_snapshot_replaces_one_that_was_written_elsewhere() -> None:
    world = await World.open()
    first, successor = Keeper(world.services), Keeper(world.services)
    await first.keep(state(3))
    await successor.keep(state(7))
    assert await kept(world) == 7
