"""Messages in users' streams, in memory and on a real server."""

from __future__ import annotations

import pytest

from tests.contract.worlds import ACK_WAIT_S, LONG_S, World
from wpa.errors import PlatformError, Unavailable
from wpa.ports import Ports
from wpa.ports.inlets import Drawn, Inlet
from wpa.ports.tasks import Feed


class Hands:
    """Keeps what it is given, and how often it was told that the inlet is lost."""

    def __init__(self) -> None:
        self.drawn: list[Drawn] = []
        self.lost = 0

    def take(self, drawn: Drawn) -> None:
        self.drawn.append(drawn)

    def lose(self) -> None:
        self.lost += 1

    @property
    def data(self) -> list[bytes]:
        return [drawn.data for drawn in self.drawn]


def inlet_of(tenant: str, subject: str = "*", workflow: str = "w") -> Inlet:
    filter = f"data.{tenant}.{subject}"
    return Inlet(tenant=tenant, workflow=workflow, stream=name_of(tenant), subject=filter, filter=filter)


def name_of(tenant: str) -> str:
    return f"DATA-{tenant}"


@pytest.fixture
async def inlet(world: World, tenant: str) -> Inlet:
    await world.add_stream(name_of(tenant), f"data.{tenant}.*")
    return inlet_of(tenant)


async def opened(ports: Ports, inlet: Inlet, credit: int = 100) -> tuple[Hands, Feed]:
    hands = Hands()
    feed = await ports.inlets.open(inlet, hands.take, hands.lose)
    feed.request(credit)
    return hands, feed


class TestStreams:
    async def test_what_a_stream_is(self, ports: Ports, inlet: Inlet, tenant: str) -> None:
        found = await ports.inlets.stream(inlet.stream)
        assert found is not None
        assert found.subjects == (f"data.{tenant}.*",)
        assert not found.any_subject
        assert not found.work_queue
        assert await ports.inlets.stream("NOBODYS") is None

    @pytest.mark.parametrize("subject", ["a", "*", ">"])
    async def test_which_streams_capture_a_subject(
        self, ports: Ports, inlet: Inlet, tenant: str, subject: str
    ) -> None:
        assert await ports.inlets.capturing(f"data.{tenant}.{subject}") == [inlet.stream]
        assert await ports.inlets.capturing(f"data.{tenant}.a.b") == []


class TestBeginnings:
    async def test_with_what_is_new(self, world: World, ports: Ports, inlet: Inlet, tenant: str) -> None:
        await world.publish(f"data.{tenant}.a", b"old")
        await world.pass_time(0.01)
        await ports.inlets.add(inlet, ports.clock.now_ms() + 3_600_000)
        await world.publish(f"data.{tenant}.a", b"new")
        hands, _ = await opened(ports, inlet)
        await world.until(lambda: hands.drawn)
        await world.pass_time(0.05)
        assert set(hands.data) == {b"new"}

    async def test_with_what_was_stored_since(
        self, world: World, ports: Ports, inlet: Inlet, tenant: str
    ) -> None:
        await world.publish(f"data.{tenant}.a", b"old")
        await world.pass_time(0.05)
        since = ports.clock.now_ms()
        await world.pass_time(0.05)
        await world.publish(f"data.{tenant}.a", b"new")
        await world.pass_time(0.01)
        await ports.inlets.add(inlet, since)
        hands, _ = await opened(ports, inlet)
        await world.until(lambda: hands.drawn)
        await world.pass_time(0.05)
        assert set(hands.data) == {b"new"}

    async def test_with_the_first(self, world: World, inlet: Inlet, tenant: str) -> None:
        ports = await world.connect(LONG_S)
        for n in range(3):
            await world.publish(f"data.{tenant}.a", b"%d" % n)
        await ports.inlets.add(inlet, None)
        hands, _ = await opened(ports, inlet)
        await world.until(lambda: len(hands.drawn) == 3)
        assert hands.data == [b"0", b"1", b"2"]

    async def test_one_that_is_there_stays_where_it_is(
        self, world: World, ports: Ports, inlet: Inlet, tenant: str
    ) -> None:
        await ports.inlets.add(inlet, None)
        for n in range(3):
            await world.publish(f"data.{tenant}.a", b"%d" % n)
        hands, feed = await opened(ports, inlet, credit=2)
        await world.until(lambda: len(hands.drawn) == 2)
        for drawn in hands.drawn:
            drawn.ack()
        await feed.close()
        await world.pass_time(ACK_WAIT_S * 1.5)
        for since_ms in (None, 0, ports.clock.now_ms() + 3_600_000):
            await ports.inlets.add(inlet, since_ms)
        again, _ = await opened(ports, inlet)
        await world.until(lambda: again.drawn)
        await world.pass_time(0.05)
        assert set(again.data) == {b"2"}

    async def test_not_without_a_stream(self, ports: Ports, tenant: str) -> None:
        for since_ms in (None, 1):
            with pytest.raises(PlatformError, match=f"no stream {name_of(tenant)}"):
                await ports.inlets.add(inlet_of(tenant), since_ms)


class TestMessages:
    async def test_all_that_is_known_of_one(
        self, world: World, ports: Ports, inlet: Inlet, tenant: str
    ) -> None:
        await ports.inlets.add(inlet, None)
        await world.publish(f"data.{tenant}.a", b"\x00\xff", {"Nats-Msg-Id": "m1", "From": "lab"})
        await world.publish(f"data.{tenant}.b", b"")
        hands, _ = await opened(ports, inlet)
        await world.until(lambda: len(hands.drawn) >= 2)
        one, two = hands.drawn[:2]
        assert (one.subject, one.data, one.delivered) == (f"data.{tenant}.a", b"\x00\xff", 1)
        assert one.headers == {"Nats-Msg-Id": "m1", "From": "lab"}
        assert (two.subject, two.headers) == (f"data.{tenant}.b", {})
        assert (one.sequence, two.sequence) == (1, 2)
        assert set(one.stored) <= set("0123456789abcdef")

    async def test_what_is_not_acked_comes_again_as_the_same(
        self, world: World, ports: Ports, inlet: Inlet, tenant: str
    ) -> None:
        await ports.inlets.add(inlet, None)
        for n in range(3):
            await world.publish(f"data.{tenant}.a", b"%d" % n)
        hands, _ = await opened(ports, inlet)
        await world.until(lambda: len(hands.drawn) >= 3)
        hands.drawn[0].ack()
        hands.drawn[1].nak()
        for n, data in ((1, b"1"), (2, b"2")):
            await world.until(lambda: hands.data.count(data) >= 2)  # noqa: B023  called at once
            first, again = [drawn for drawn in hands.drawn if drawn.data == data][:2]
            assert first is hands.drawn[n]
            assert (first.delivered, again.delivered) == (1, 2)
            assert (again.sequence, again.stored) == (first.sequence, first.stored)

    async def test_each_reaches_one_of_those_who_have_it_open(
        self, world: World, inlet: Inlet, tenant: str
    ) -> None:
        one, two = await world.connect(LONG_S), await world.connect(LONG_S)
        await one.inlets.add(inlet, None)
        ours, _ = await opened(one, inlet)
        theirs, _ = await opened(two, inlet)
        for n in range(40):
            await world.publish(f"data.{tenant}.a", b"%d" % n)
        await world.until(lambda: len(ours.drawn) + len(theirs.drawn) >= 40)
        assert sorted(ours.data + theirs.data) == sorted(b"%d" % n for n in range(40))

    async def test_what_one_who_is_gone_had_in_hand_goes_to_the_others(
        self, world: World, inlet: Inlet, tenant: str
    ) -> None:
        one, two = await world.connect(), await world.connect()
        await one.inlets.add(inlet, None)
        await world.publish(f"data.{tenant}.a", b"1")
        ours, _ = await opened(one, inlet)
        await world.until(lambda: ours.drawn)
        await one.aclose()
        ours.drawn[0].ack()
        theirs, _ = await opened(two, inlet)
        await world.pass_time(ACK_WAIT_S * 1.5)
        await world.until(lambda: theirs.drawn)
        assert (theirs.data[0], theirs.drawn[0].delivered) == (b"1", 2)

    async def test_inlets_do_not_take_from_each_other(self, world: World, inlet: Inlet, tenant: str) -> None:
        ports = await world.connect(LONG_S)
        others = [inlet_of(tenant, workflow="v"), inlet_of(tenant, "b")]
        found = []
        for each in (inlet, *others):
            await ports.inlets.add(each, None)
            found.append((await opened(ports, each))[0])
        for subject in ("a", "b"):
            await world.publish(f"data.{tenant}.{subject}", subject.encode())
        await world.until(lambda: [len(hands.drawn) for hands in found] == [2, 2, 1])
        assert found[2].data == [b"b"]

    async def test_never_more_than_were_asked_for(self, world: World, inlet: Inlet, tenant: str) -> None:
        ports = await world.connect(LONG_S)
        await ports.inlets.add(inlet, None)
        for n in range(5):
            await world.publish(f"data.{tenant}.a", b"%d" % n)
        hands, feed = await opened(ports, inlet, credit=2)
        await world.until(lambda: len(hands.drawn) == 2)
        await world.pass_time(0.1)
        assert len(hands.drawn) == 2
        feed.request(1)
        await world.until(lambda: len(hands.drawn) == 3)


class TestEnds:
    async def test_an_inlet_is_removed_and_whoever_has_it_open_is_told(
        self, world: World, ports: Ports, inlet: Inlet, tenant: str
    ) -> None:
        await ports.inlets.add(inlet, None)
        hands, _ = await opened(ports, inlet)
        await world.pass_time(0.1)
        await ports.inlets.remove(inlet)
        await world.until(lambda: hands.lost)
        await ports.inlets.remove(inlet)
        await world.publish(f"data.{tenant}.a", b"1")
        await world.pass_time(0.05)
        assert hands.drawn == []

    async def test_one_that_is_not_there_is_lost_from_the_beginning(
        self, world: World, ports: Ports, inlet: Inlet
    ) -> None:
        hands, feed = await opened(ports, inlet)
        await world.until(lambda: hands.lost)
        await feed.close()

    async def test_a_stream_goes_and_comes_back(
        self, world: World, ports: Ports, inlet: Inlet, tenant: str
    ) -> None:
        await ports.inlets.add(inlet, None)
        await world.publish(f"data.{tenant}.a", b"1")
        hands, feed = await opened(ports, inlet)
        await world.until(lambda: hands.drawn)
        await world.delete_stream(inlet.stream)
        await world.until(lambda: hands.lost)
        await feed.close()
        await ports.inlets.remove(inlet)
        await world.pass_time(0.01)
        await world.add_stream(inlet.stream, f"data.{tenant}.*")
        await world.publish(f"data.{tenant}.a", b"2")
        await ports.inlets.add(inlet, 0)
        again, _ = await opened(ports, inlet)
        await world.until(lambda: again.drawn)
        assert again.data[0] == b"2"
        assert again.drawn[0].sequence == hands.drawn[0].sequence
        assert again.drawn[0].stored != hands.drawn[0].stored

    async def test_one_that_is_closed_draws_nothing_more(
        self, world: World, ports: Ports, inlet: Inlet, tenant: str
    ) -> None:
        await ports.inlets.add(inlet, None)
        hands, feed = await opened(ports, inlet)
        await feed.close()
        await feed.close()
        await world.publish(f"data.{tenant}.a", b"1")
        await world.pass_time(0.05)
        assert hands.drawn == []

    async def test_not_without_a_connection(self, world: World, ports: Ports, inlet: Inlet) -> None:
        await ports.aclose()
        with pytest.raises(Unavailable):
            await ports.inlets.add(inlet, None)
        with pytest.raises(Unavailable):
            await ports.inlets.stream(inlet.stream)
