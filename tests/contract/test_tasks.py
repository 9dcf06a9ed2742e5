from __future__ import annotations

import pytest

from tests.contract.worlds import ACK_WAIT_S, LONG_S, Hands, World
from wpa.errors import PlatformError
from wpa.ports import Ports


class TestPublishing:
    async def test_tasks_are_delivered_in_order_with_their_headers(self, world: World, tenant: str) -> None:
        ports = await world.connect(LONG_S)
        sequences = [
            await ports.tasks.publish(tenant, b"%d" % n, {"Traceparent": f"00-{n}"}) for n in range(5)
        ]
        hands = Hands()
        feed = await ports.tasks.open(tenant, hands)
        feed.request(10)
        await world.until(lambda: len(hands.leases) == 5)
        assert hands.data == [b"0", b"1", b"2", b"3", b"4"]
        assert [lease.sequence for lease in hands.leases] == sequences == sorted(set(sequences))
        first = hands.leases[0]
        assert (first.tenant, first.delivered) == (tenant, 1)
        assert first.headers["Traceparent"] == "00-0"

    async def test_tasks_that_come_later_are_delivered_as_they_come(
        self, world: World, ports: Ports, tenant: str
    ) -> None:
        hands = Hands()
        feed = await ports.tasks.open(tenant, hands)
        feed.request(2)
        await ports.tasks.publish(tenant, b"late", {})
        await world.until(lambda: hands.data == [b"late"])

    async def test_any_bytes_are_a_task(self, world: World, tenant: str) -> None:
        ports = await world.connect(LONG_S)
        hands = Hands()
        (await ports.tasks.open(tenant, hands)).request(3)
        for data in (b"", b"\x00\xff\r\n", b"x" * 1_000_000):
            await ports.tasks.publish(tenant, data, {})
        await world.until(lambda: len(hands.leases) == 3)
        assert hands.data == [b"", b"\x00\xff\r\n", b"x" * 1_000_000]
        assert hands.leases[0].headers == {}

    async def test_a_header_is_one_line(self, world: World, ports: Ports, tenant: str) -> None:
        hands = Hands()
        (await ports.tasks.open(tenant, hands)).request(1)
        await ports.tasks.publish(tenant, b"", {"Wpa-Note": "a\r\nNats-Evil: b"})
        await world.until(lambda: hands.leases)
        assert hands.leases[0].headers == {"Wpa-Note": "a Nats-Evil: b"}

    async def test_who_has_tasks(self, world: World, ports: Ports, tenant: str) -> None:
        assert tenant not in await ports.tasks.tenants()
        await ports.tasks.publish(tenant, b"", {})
        assert tenant in await ports.tasks.tenants()

    async def test_identities_are_subject_tokens_and_nobody_elses(self, world: World, tenant: str) -> None:
        ports = await world.connect(LONG_S)
        hands = Hands()
        (await ports.tasks.open(tenant, hands)).request(2)
        await ports.tasks.publish(tenant, b"", {})
        await ports.tasks.publish(tenant, b"", {})
        await world.until(lambda: len(hands.leases) == 2)
        one, two = (lease.identity for lease in hands.leases)
        assert one != two
        assert set(one + two) <= set("0123456789abcdef-")


class TestCredits:
    async def test_never_more_than_were_asked_for(self, world: World, tenant: str) -> None:
        ports = await world.connect(LONG_S)
        for n in range(6):
            await ports.tasks.publish(tenant, b"%d" % n, {})
        hands = Hands()
        feed = await ports.tasks.open(tenant, hands)
        await world.pass_time(0.1)
        assert hands.data == []
        feed.request(2)
        await world.until(lambda: len(hands.leases) == 2)
        await world.pass_time(0.1)
        assert hands.data == [b"0", b"1"]
        feed.request(1)
        await world.until(lambda: len(hands.leases) == 3)
        await world.pass_time(0.1)
        assert hands.data == [b"0", b"1", b"2"]

    async def test_credits_add_up_before_there_are_tasks(self, world: World, tenant: str) -> None:
        ports = await world.connect(LONG_S)
        hands = Hands()
        feed = await ports.tasks.open(tenant, hands)
        for _ in range(3):
            feed.request(1)
        for n in range(5):
            await ports.tasks.publish(tenant, b"%d" % n, {})
        await world.until(lambda: len(hands.leases) == 3)
        await world.pass_time(0.1)
        assert hands.data == [b"0", b"1", b"2"]

    async def test_many_tasks_one_credit_at_a_time(self, world: World, tenant: str) -> None:
        ports = await world.connect(LONG_S)
        hands = Hands()
        feed = await ports.tasks.open(tenant, hands)
        for n in range(60):
            await ports.tasks.publish(tenant, b"%d" % n, {})
        feed.request(4)
        answered = 0
        while answered < 60:
            await world.until(lambda: len(hands.leases) > answered)  # noqa: B023  called at once
            assert len(hands.leases) <= answered + 4
            hands.leases[answered].ack()
            feed.request(1)
            answered += 1
        assert hands.data == [b"%d" % n for n in range(60)]

    async def test_a_closed_feed_gets_nothing_more(self, world: World, ports: Ports, tenant: str) -> None:
        hands = Hands()
        feed = await ports.tasks.open(tenant, hands)
        feed.request(5)
        await ports.tasks.publish(tenant, b"0", {})
        await world.until(lambda: hands.leases)
        await feed.close()
        await ports.tasks.publish(tenant, b"1", {})
        await world.pass_time(0.1)
        assert hands.data == [b"0"]
        # What it holds is still its own to answer.
        hands.leases[0].ack()
        others = Hands()
        (await ports.tasks.open(tenant, others)).request(5)
        await world.until(lambda: others.leases)
        await world.pass_time(ACK_WAIT_S * 1.5)
        assert set(others.data) == {b"1"}


class TestLeases:
    async def lease(self, world: World, ports: Ports, tenant: str, credit: int = 50) -> Hands:
        hands = Hands()
        (await ports.tasks.open(tenant, hands)).request(credit)
        await ports.tasks.publish(tenant, b"task", {})
        await world.until(lambda: hands.leases)
        return hands

    async def gone(self, world: World, ports: Ports, tenant: str, hands: Hands) -> None:
        """The task is removed, and not delivered again."""

        async def removed() -> bool:
            return tenant not in await ports.tasks.tenants()

        await world.until(removed)
        before = len(hands.leases)
        await world.pass_time(ACK_WAIT_S * 1.5)
        assert len(hands.leases) == before

    async def test_ack_removes(self, world: World, ports: Ports, tenant: str) -> None:
        hands = await self.lease(world, ports, tenant)
        hands.leases[0].ack()
        await self.gone(world, ports, tenant, hands)

    async def test_without_an_answer_it_is_delivered_again(
        self, world: World, ports: Ports, tenant: str
    ) -> None:
        began_ms = ports.clock.now_ms()
        hands = await self.lease(world, ports, tenant)
        await world.until(lambda: len(hands.leases) >= 2)
        assert ports.clock.now_ms() - began_ms >= ACK_WAIT_S * 900, "not before the lease is over"
        first, second = hands.leases[:2]
        assert (first.sequence, first.identity, first.data) == (second.sequence, second.identity, second.data)
        await world.until(lambda: len(hands.leases) >= 3)
        assert hands.delivered[:3] == [1, 2, 3]

    async def test_extend_keeps_it(self, world: World, tenant: str) -> None:
        lease_s = 1.8
        ports = await world.connect(lease_s)
        hands = await self.lease(world, ports, tenant)
        for _ in range(5):
            await world.pass_time(lease_s * 0.25)
            hands.leases[0].extend()
        assert len(hands.leases) == 1
        await world.until(lambda: len(hands.leases) == 2)
        assert hands.leases[1].delivered == 2

    async def test_nak_gives_it_back_at_once(self, world: World, tenant: str) -> None:
        hands = await self.lease(world, await world.connect(LONG_S), tenant)
        hands.leases[0].nak()
        await world.until(lambda: hands.delivered == [1, 2])

    async def test_nak_with_a_delay(self, world: World, ports: Ports, tenant: str) -> None:
        hands = await self.lease(world, ports, tenant)
        began_ms, before = ports.clock.now_ms(), len(hands.leases)
        hands.leases[-1].nak(ACK_WAIT_S * 2)
        await world.until(lambda: len(hands.leases) > before)
        assert ports.clock.now_ms() - began_ms >= ACK_WAIT_S * 1_900
        assert hands.leases[before].delivered == before + 1

    async def test_nak_with_a_short_delay(self, world: World, tenant: str) -> None:
        hands = await self.lease(world, await world.connect(LONG_S), tenant)
        hands.leases[0].nak(0.1)
        await world.until(lambda: hands.delivered == [1, 2])

    async def test_a_second_nak_ends_the_delay_of_the_first(self, world: World, tenant: str) -> None:
        ports = await world.connect(LONG_S)
        hands = await self.lease(world, ports, tenant)
        hands.leases[0].nak(LONG_S)
        await world.pass_time(0.3)
        assert hands.delivered == [1]
        began_ms = ports.clock.now_ms()
        hands.leases[0].nak()
        await world.until(lambda: hands.delivered == [1, 2])
        assert ports.clock.now_ms() - began_ms < LONG_S * 500

    async def test_a_late_ack_is_obeyed(self, world: World, ports: Ports, tenant: str) -> None:
        hands = await self.lease(world, ports, tenant)
        await world.until(lambda: len(hands.leases) >= 2)
        hands.leases[0].ack()
        await self.gone(world, ports, tenant, hands)

    async def test_a_late_nak_is_obeyed(self, world: World, tenant: str) -> None:
        lease_s = 2.0
        ports = await world.connect(lease_s)
        hands = await self.lease(world, ports, tenant)
        await world.until(lambda: len(hands.leases) == 2)
        began_ms = ports.clock.now_ms()
        hands.leases[0].nak()
        await world.until(lambda: hands.delivered == [1, 2, 3])
        assert ports.clock.now_ms() - began_ms < lease_s * 900, "before the second lease is over"

    async def test_acking_twice_is_acking_once(self, world: World, ports: Ports, tenant: str) -> None:
        hands = await self.lease(world, ports, tenant)
        hands.leases[0].ack()
        hands.leases[0].ack()
        hands.leases[0].nak()
        hands.leases[0].extend()
        await self.gone(world, ports, tenant, hands)

    async def test_an_overdue_task_comes_before_fresh_ones(
        self, world: World, ports: Ports, tenant: str
    ) -> None:
        hands = Hands()
        feed = await ports.tasks.open(tenant, hands)
        for n in range(3):
            await ports.tasks.publish(tenant, b"%d" % n, {})
        feed.request(1)
        await world.until(lambda: hands.leases)
        await world.pass_time(ACK_WAIT_S * 1.5)
        feed.request(1)
        await world.until(lambda: len(hands.leases) == 2)
        assert hands.data == [b"0", b"0"]

    async def test_redelivery_takes_credit_too(self, world: World, ports: Ports, tenant: str) -> None:
        hands = await self.lease(world, ports, tenant, credit=1)
        await world.pass_time(ACK_WAIT_S * 2)
        assert len(hands.leases) == 1


class TestManyHolders:
    async def test_no_two_hold_the_same_task(self, world: World, tenant: str) -> None:
        holders = [Hands(), Hands(), Hands()]
        workers = [await world.connect(LONG_S) for _ in holders]
        for worker, hands in zip(workers, holders, strict=True):
            (await worker.tasks.open(tenant, hands)).request(40)
        for n in range(60):
            await workers[0].tasks.publish(tenant, b"%d" % n, {})
        await world.until(lambda: sum(len(hands.leases) for hands in holders) >= 60)
        await world.pass_time(0.1)
        delivered = [data for hands in holders for data in hands.data]
        assert sorted(delivered, key=int) == [b"%d" % n for n in range(60)]
        assert all(hands.leases for hands in holders), "work is shared"

    async def test_what_a_dead_worker_held_goes_to_another(self, world: World, tenant: str) -> None:
        dying, living = await world.connect(), await world.connect()
        first, second = Hands(), Hands()
        (await dying.tasks.open(tenant, first)).request(5)
        await living.tasks.publish(tenant, b"task", {})
        await world.until(lambda: first.leases)
        await dying.aclose()
        (await living.tasks.open(tenant, second)).request(5)
        await world.until(lambda: second.leases)
        assert (second.leases[0].delivered, second.leases[0].identity) == (2, first.leases[0].identity)
        first.leases[0].ack()  # from beyond: it has no connection any more
        await world.until(lambda: len(second.leases) >= 2)
        assert second.leases[1].delivered == 3

    async def test_a_naked_task_goes_to_whoever_has_credit(self, world: World, tenant: str) -> None:
        one, two = await world.connect(), await world.connect()
        first, second = Hands(), Hands()
        feed = await one.tasks.open(tenant, first)
        feed.request(1)
        await one.tasks.publish(tenant, b"task", {})
        await world.until(lambda: first.leases)
        (await two.tasks.open(tenant, second)).request(1)
        first.leases[0].nak()
        await world.until(lambda: second.leases)
        assert second.leases[0].delivered == 2


async def test_tenants_do_not_wait_for_each_other(world: World, tenant: str) -> None:
    ports = await world.connect(LONG_S)
    busy, quick = Hands(), Hands()
    feed = await ports.tasks.open(tenant, busy)
    feed.request(1)
    for n in range(20):
        await ports.tasks.publish(tenant, b"%d" % n, {})
    (await ports.tasks.open(f"{tenant}-b", quick)).request(1)
    await ports.tasks.publish(f"{tenant}-b", b"mine", {})
    await world.until(lambda: quick.leases)
    assert quick.data == [b"mine"]
    assert quick.leases[0].tenant == f"{tenant}-b"
    assert busy.data == [b"0"]


class TestDeadLetters:
    async def test_none(self, ports: Ports, tenant: str) -> None:
        assert await ports.tasks.buried(tenant, 10) == []
        assert await ports.tasks.exhume(tenant, 1_000_000) is None
        await ports.tasks.discard(tenant, 1_000_000)

    async def test_the_original_is_untouched(self, ports: Ports, tenant: str) -> None:
        original = b'\x00\xff{"not json\r\n'
        headers = {"Wpa-Code": "not_json", "Wpa-Reason": "the task is not valid JSON"}
        sequence = await ports.tasks.bury(tenant, original, headers)
        assert await ports.tasks.buried(tenant, 10) == [(sequence, original, headers)]
        assert await ports.tasks.exhume(tenant, sequence) == (original, headers)

    async def test_the_newest_first_up_to_the_limit(self, ports: Ports, tenant: str) -> None:
        sequences = [await ports.tasks.bury(tenant, b"%d" % n, {}) for n in range(5)]
        await ports.tasks.bury(f"{tenant}-b", b"other", {})
        found = await ports.tasks.buried(tenant, 3)
        assert [(sequence, data) for sequence, data, _ in found] == [
            (sequences[4], b"4"),
            (sequences[3], b"3"),
            (sequences[2], b"2"),
        ]

    async def test_more_than_one_page(self, ports: Ports, tenant: str) -> None:
        sequences = [await ports.tasks.bury(tenant, b"%d" % n, {}) for n in range(510)]
        found = await ports.tasks.buried(tenant, 1_000)
        assert [sequence for sequence, _, _ in found] == sequences[::-1]
        assert len(await ports.tasks.buried(tenant, 505)) == 505

    async def test_those_before_one(self, ports: Ports, tenant: str) -> None:
        sequences = [await ports.tasks.bury(tenant, b"%d" % n, {}) for n in range(510)]
        found = await ports.tasks.buried(tenant, 2, sequences[4])
        assert [sequence for sequence, _, _ in found] == [sequences[3], sequences[2]]
        found = await ports.tasks.buried(tenant, 600, sequences[505])
        assert [sequence for sequence, _, _ in found] == sequences[504::-1]
        assert await ports.tasks.buried(tenant, 10, sequences[0]) == []
        assert len(await ports.tasks.buried(tenant, 10, sequences[-1] + 1_000)) == 10

    async def test_discard_removes_one(self, ports: Ports, tenant: str) -> None:
        one = await ports.tasks.bury(tenant, b"1", {})
        two = await ports.tasks.bury(tenant, b"2", {})
        await ports.tasks.discard(tenant, one)
        await ports.tasks.discard(tenant, one)
        assert [sequence for sequence, _, _ in await ports.tasks.buried(tenant, 10)] == [two]
        assert await ports.tasks.exhume(tenant, one) is None

    async def test_another_tenants_letters_are_out_of_reach(self, ports: Ports, tenant: str) -> None:
        sequence = await ports.tasks.bury(tenant, b"1", {})
        assert await ports.tasks.exhume(f"{tenant}-b", sequence) is None
        await ports.tasks.discard(f"{tenant}-b", sequence)
        assert await ports.tasks.exhume(tenant, sequence) is not None


async def test_after_the_end_every_call_says_so(world: World, tenant: str) -> None:
    ports = await world.connect()
    await ports.aclose()
    with pytest.raises(PlatformError):
        await ports.tasks.publish(tenant, b"", {})
    with pytest.raises(PlatformError):
        await ports.snapshots.put(tenant, "x1", b"", 0)
    with pytest.raises(PlatformError):
        await ports.journal.read(tenant, "x1")
