from __future__ import annotations

import json

import pytest

from tests.contract.worlds import World
from wpa.errors import Unavailable
from wpa.ports import Ports
from wpa.ports.live import OnNudge


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
    told: list[tuple[str, str, str, int, str]] = []

    def remember(worker: str) -> OnNudge:
        async def callback(tenant: str, execution: str, epoch: int, reason: str) -> None:
            told.append((worker, tenant, execution, epoch, reason))

        return callback

    one, two = await world.connect(), await world.connect()
    await one.live.on_nudge(f"{tenant}-w1", remember("w1"))
    await two.live.on_nudge(f"{tenant}-w2", remember("w2"))
    # A round trip, so that both are listening.
    await one.journal.read(tenant, "x1")
    await two.journal.read(tenant, "x1")
    two.live.nudge(f"{tenant}-w1", tenant, "x1", 3)
    two.live.nudge(f"{tenant}-w1", tenant, "x2", 4, "cancel")
    await world.until(lambda: len(told) == 2)
    await world.pass_time(0.05)
    assert sorted(told) == [("w1", tenant, "x1", 3, ""), ("w1", tenant, "x2", 4, "cancel")]


class Ears:
    """Keeps what it hears; fails on what it is told to."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, bytes]] = []

    def __call__(self, subject: str, data: bytes, headers: dict[str, str]) -> None:
        if data == b"bad":
            raise ValueError("not this one")
        self.heard.append((subject, data))


class TestWatching:
    async def test_any_subject_by_its_pattern(self, world: World, tenant: str) -> None:
        watcher, publisher = await world.connect(), await world.connect()
        one, rest = Ears(), Ears()
        await watcher.live.watch(f"data.{tenant}.*", one)
        await watcher.live.watch(f"data.{tenant}.>", rest)
        await watcher.journal.read(tenant, "x1")
        publisher.live.publish(f"data.{tenant}.raw", b"1")
        publisher.live.publish(f"data.{tenant}.raw.more", b"2")
        publisher.live.publish(f"data.{tenant}-b.raw", b"3")
        await world.until(lambda: len(rest.heard) == 2)
        assert rest.heard == [(f"data.{tenant}.raw", b"1"), (f"data.{tenant}.raw.more", b"2")]
        assert one.heard == rest.heard[:1]

    async def test_headers_come_along(self, world: World, tenant: str) -> None:
        ports = await world.connect()
        heard: list[dict[str, str]] = []
        await ports.live.watch(
            f"workflow.tasks.{tenant}", lambda subject, data, headers: heard.append(headers)
        )
        await ports.journal.read(tenant, "x1")
        await ports.tasks.publish(tenant, b"", {"Order-Id": "4711"})
        await ports.tasks.publish(tenant, b"", {})
        await world.until(lambda: len(heard) == 2)
        assert heard == [{"Order-Id": "4711"}, {}]

    async def test_a_queue_shares_them(self, world: World, tenant: str) -> None:
        members = [Ears(), Ears(), Ears()]
        alone = Ears()
        for ears in members:
            ports = await world.connect()
            await ports.live.watch(f"data.{tenant}.*", ears, queue="triggers")
            await ports.journal.read(tenant, "x1")
        ports = await world.connect()
        await ports.live.watch(f"data.{tenant}.*", alone)
        await ports.journal.read(tenant, "x1")
        for n in range(60):
            ports.live.publish(f"data.{tenant}.raw", b"%d" % n)
        await world.until(lambda: len(alone.heard) == 60)
        await world.until(lambda: sum(len(ears.heard) for ears in members) >= 60)
        await world.pass_time(0.05)
        assert sorted(heard for ears in members for heard in ears.heard) == sorted(alone.heard)
        assert sum(bool(ears.heard) for ears in members) > 1, "more than one of them gets some"

    async def test_until_it_is_ended(self, world: World, tenant: str) -> None:
        ports = await world.connect()
        ears, others = Ears(), Ears()
        end = await ports.live.watch(f"data.{tenant}", ears)
        await ports.live.watch(f"data.{tenant}", others)
        await ports.journal.read(tenant, "x1")
        ports.live.publish(f"data.{tenant}", b"1")
        await world.until(lambda: ears.heard and others.heard)
        await end()
        await end()
        ports.live.publish(f"data.{tenant}", b"2")
        await world.until(lambda: len(others.heard) == 2)
        await world.pass_time(0.05)
        assert [data for _, data in ears.heard] == [b"1"]

    async def test_one_that_fails_is_called_again(self, world: World, tenant: str) -> None:
        ports = await world.connect()
        ears = Ears()
        await ports.live.watch(f"data.{tenant}", ears)
        await ports.journal.read(tenant, "x1")
        ports.live.publish(f"data.{tenant}", b"bad")
        ports.live.publish(f"data.{tenant}", b"good")
        await world.until(lambda: ears.heard)
        assert [data for _, data in ears.heard] == [b"good"]

    async def test_not_without_a_connection(self, world: World, tenant: str) -> None:
        ports = await world.connect()
        end = await ports.live.watch(f"data.{tenant}", Ears())
        await ports.aclose()
        await end()
        with pytest.raises(Unavailable):
            await ports.live.watch(f"data.{tenant}", Ears())


async def test_after_the_end_nothing_is_sent_and_nothing_fails(world: World, tenant: str) -> None:
    heard = await world.listen(f"workflow.events.{tenant}.>")
    ports = await world.connect()
    await ports.aclose()
    ports.live.publish_event(tenant, "x1", {"event": "step_started"})
    await world.pass_time(0.05)
    assert heard == []
