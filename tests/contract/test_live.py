from __future__ import annotations

import json
from collections.abc import Awaitable, Callable

from tests.contract.worlds import World
from wpa.ports import Ports


async def test_live_events_reach_whoever_listens(world: World, ports: Ports, tenant: str) -> None:
    exact = await world.listen(f"workflow.events.{tenant}.x1.live")
    rest = await world.listen(f"workflow.events.{tenant}.>")
    token = await world.listen(f"workflow.events.{tenant}.*.live")
    journal = await world.listen(f"workflow.events.{tenant}.*")
    other = await world.listen(f"workflow.events.{tenant}-b.>")
    ports.live.publish_event(tenant, "x1", {"event": "step_started", "step": "a", "n": 1})
    await world.until(lambda: exact and rest and token)
    assert exact == rest == token
    assert exact[0].subject == f"workflow.events.{tenant}.x1.live"
    assert json.loads(exact[0].data) == {"event": "step_started", "step": "a", "n": 1}
    assert journal == []
    assert other == []


async def test_live_events_are_not_stored(ports: Ports, tenant: str) -> None:
    ports.live.publish_event(tenant, "x1", {"event": "step_started"})
    assert await ports.journal.read(tenant, "x1") == []


async def test_in_the_order_of_their_publishing(world: World, ports: Ports, tenant: str) -> None:
    heard = await world.listen(f"workflow.emit.{tenant}.>")
    for number in range(100):
        ports.live.publish(f"workflow.emit.{tenant}.news", b"%d" % number)
    await world.until(lambda: len(heard) == 100)
    assert [message.data for message in heard] == [b"%d" % number for number in range(100)]


async def test_a_nudge_reaches_its_worker_only(world: World, tenant: str) -> None:
    told: list[tuple[str, str, str, int]] = []

    def remember(worker: str) -> Callable[[str, str, int], Awaitable[None]]:
        async def callback(tenant: str, execution: str, epoch: int) -> None:
            told.append((worker, tenant, execution, epoch))

        return callback

    one, two = await world.connect(), await world.connect()
    await one.live.on_nudge(f"{tenant}-w1", remember("w1"))
    await two.live.on_nudge(f"{tenant}-w2", remember("w2"))
    # A round trip, so that both are listening.
    await one.journal.read(tenant, "x1")
    await two.journal.read(tenant, "x1")
    two.live.nudge(f"{tenant}-w1", tenant, "x1", 3)
    await world.until(lambda: told)
    await world.pass_time(0.05)
    assert told == [("w1", tenant, "x1", 3)]


async def test_after_the_end_nothing_is_sent_and_nothing_fails(world: World, tenant: str) -> None:
    heard = await world.listen(f"workflow.events.{tenant}.>")
    ports = await world.connect()
    await ports.aclose()
    ports.live.publish_event(tenant, "x1", {"event": "step_started"})
    await world.pass_time(0.05)
    assert heard == []
