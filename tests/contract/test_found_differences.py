"""What ``test_same_deliveries.py`` once found not to be the same, one by one."""

from __future__ import annotations

from tests.contract.worlds import LONG_S, Hands, World, ignore
from wpa.ports import Ports
from wpa.ports.tasks import Feed


async def lease(world: World, ports: Ports, tenant: str, count: int) -> tuple[Hands, Feed]:
    """So many tasks, in hand, and no credit for more."""
    hands = Hands()
    feed = await ports.tasks.open(tenant, hands)
    for number in range(count):
        await ports.tasks.publish(tenant, b"%d" % number, {})
    feed.request(count)
    await world.until(lambda: len(hands.leases) == count)
    return hands, feed


async def test_what_was_given_back_can_still_be_put_off(world: World, tenant: str) -> None:
    ports = await world.connect(LONG_S)
    hands, feed = await lease(world, ports, tenant, 2)
    first, second = hands.leases
    first.nak()
    second.nak()
    first.nak(LONG_S)
    await world.obeyed(ports, first.source)
    feed.request(2)
    await ports.tasks.publish(tenant, b"fresh", {})
    await world.until(lambda: len(hands.leases) == 4)
    assert hands.data[2:] == [b"1", b"fresh"]


async def test_who_wants_longer_leases_lengthens_those_that_have_begun(world: World, tenant: str) -> None:
    lease_s = 1.5
    hands, feed = await lease(world, await world.connect(lease_s), tenant, 1)
    await (await (await world.connect(LONG_S)).tasks.open(tenant, ignore)).close()
    feed.request(1)
    await world.pass_time(lease_s * 1.5)
    assert hands.delivered == [1]


async def test_who_wants_shorter_leases_shortens_nobodys(world: World, tenant: str) -> None:
    hands, feed = await lease(world, await world.connect(LONG_S), tenant, 1)
    await (await (await world.connect(0.1)).tasks.open(tenant, ignore)).close()
    feed.request(1)
    await world.pass_time(0.5)
    assert hands.delivered == [1]


async def test_what_is_overdue_comes_in_the_order_in_which_it_became_so(world: World, tenant: str) -> None:
    ports = await world.connect(LONG_S)
    hands, feed = await lease(world, ports, tenant, 3)
    for number, delay_s in enumerate((1.2, 0.6, 0.0)):
        hands.leases[number].nak(delay_s)
    await feed.close()
    await world.pass_time(1.6)  # nobody is there to be given anything
    (await ports.tasks.open(tenant, hands)).request(3)
    await world.until(lambda: len(hands.leases) == 6)
    assert hands.data[3:] == [b"2", b"1", b"0"]


async def test_one_that_is_published_twice_by_its_id_is_stored_once(world: World, tenant: str) -> None:
    ports = await world.connect(LONG_S)
    headers = {"Nats-Msg-Id": f"{tenant}-1"}
    first, again, other = [
        await ports.tasks.publish(tenant, data, own)
        for data, own in ((b"0", headers), (b"0 again", headers), (b"1", {}))
    ]
    assert first == again != other
    hands = Hands()
    (await ports.tasks.open(tenant, hands)).request(5)
    await world.until(lambda: len(hands.leases) >= 2)
    assert hands.data == [b"0", b"1"]
    assert hands.leases[0].headers == headers
