from __future__ import annotations

import pytest

from tests.contract.worlds import ACK_WAIT_S, LONG_S, Hands, World
from wpa.ports import Ports
from wpa.ports.tasks import Source


async def take(ports: Ports, source: Source | str, credit: int = 50) -> Hands:
    hands = Hands()
    (await ports.tasks.open(source, hands)).request(credit)
    return hands


class TestSteps:
    async def test_reach_the_workers_of_their_queue(self, world: World, ports: Ports, tenant: str) -> None:
        gpu = await take(ports, Source(tenant, "steps", "gpu"))
        cpu = await take(ports, Source(tenant, "steps", "cpu"))
        sequence = await ports.tasks.publish_step(tenant, "gpu", b"step", {"Wpa-Slot": "train"})
        await world.until(lambda: gpu.leases)
        lease = gpu.leases[0]
        assert (lease.data, lease.sequence, lease.headers["Wpa-Slot"]) == (b"step", sequence, "train")
        assert (lease.source, lease.tenant) == (Source(tenant, "steps", "gpu"), tenant)
        lease.ack()
        before = len(gpu.leases)
        await world.pass_time(ACK_WAIT_S * 1.5)
        assert len(gpu.leases) == before
        assert cpu.leases == []

    async def test_are_redelivered_and_shared_like_tasks(self, world: World, tenant: str) -> None:
        one, two = await world.connect(), await world.connect()
        source = Source(tenant, "steps", "gpu")
        first = await take(one, source)
        await two.tasks.publish_step(tenant, "gpu", b"step", {})
        await world.until(lambda: first.leases)
        second = await take(two, source)
        await one.aclose()
        await world.until(lambda: second.leases)
        assert second.leases[0].delivered == 2
        assert second.leases[0].identity == first.leases[0].identity

    async def test_wait_until_somebody_serves_the_queue(self, world: World, tenant: str) -> None:
        ports = await world.connect(LONG_S)
        assert (tenant, "gpu") not in await ports.tasks.queues()
        await ports.tasks.publish_step(tenant, "gpu", b"1", {})
        await ports.tasks.publish_step(tenant, "gpu", b"2", {})
        await ports.tasks.publish_step(tenant, "GPU_2", b"3", {})
        await ports.tasks.publish_step(f"{tenant}-b", "gpu", b"4", {})
        waiting = {(tenant, "gpu"), (tenant, "GPU_2"), (f"{tenant}-b", "gpu")}
        assert waiting <= await ports.tasks.queues()
        hands = await take(ports, Source(tenant, "steps", "gpu"))
        await world.until(lambda: len(hands.leases) == 2)
        assert hands.data == [b"1", b"2"]
        for lease in hands.leases:
            lease.ack()

        async def served() -> bool:
            return (tenant, "gpu") not in await ports.tasks.queues()

        await world.until(served)
        assert (tenant, "GPU_2") in await ports.tasks.queues()

    async def test_a_queue_of_steps_is_not_a_tenant_with_tasks(self, ports: Ports, tenant: str) -> None:
        await ports.tasks.publish_step(tenant, "gpu", b"", {})
        assert tenant not in await ports.tasks.tenants()

    async def test_names_that_only_look_alike_are_apart(self, world: World, tenant: str) -> None:
        ports = await world.connect(LONG_S)
        sources = [
            Source(f"{tenant}-b", "steps", "c"),
            Source(tenant, "steps", "b-c"),
            Source(tenant, "steps", "B-C"),
            Source(tenant, "steps", "b_c"),
        ]
        hands = [await take(ports, source) for source in sources]
        for source in sources:
            await ports.tasks.publish_step(source.tenant, source.queue, source.subject.encode(), {})
        await world.until(lambda: all(each.leases for each in hands))
        assert [each.data for each in hands] == [[source.subject.encode()] for source in sources]


async def test_the_kinds_of_one_tenant_are_apart(world: World, ports: Ports, tenant: str) -> None:
    tasks, plain = await take(ports, Source(tenant)), await take(ports, f"{tenant}-b")
    due, steps = await take(ports, Source(tenant, "due")), await take(ports, Source(tenant, "steps", "due"))
    await ports.tasks.publish(tenant, b"task", {})
    await ports.tasks.publish(f"{tenant}-b", b"plain", {})
    await ports.timers.set(tenant, "x1.wake", 0, b"due")
    await ports.tasks.publish_step(tenant, "due", b"step", {})
    every = [tasks, plain, due, steps]
    await world.until(lambda: all(hands.leases for hands in every))
    assert [hands.data[0] for hands in every] == [b"task", b"plain", b"due", b"step"]
    leases = [hands.leases[0] for hands in every]
    assert [lease.source for lease in leases] == [
        Source(tenant),
        Source(f"{tenant}-b"),
        Source(tenant, "due"),
        Source(tenant, "steps", "due"),
    ]
    assert len({lease.identity for lease in leases}) == 4
    assert all(set(lease.identity) <= set("abcdefghijklmnopqrstuvwxyz0123456789-") for lease in leases)


@pytest.mark.parametrize(("kind", "queue"), [("steps", ""), ("tasks", "gpu"), ("due", "gpu")])
def test_steps_and_only_they_have_a_queue(kind: str, queue: str) -> None:
    with pytest.raises(ValueError, match="queue"):
        Source("acme", kind, queue)  # type: ignore[arg-type]


def test_subjects() -> None:
    assert Source("acme").subject == "workflow.tasks.acme"
    assert Source("acme", "due").subject == "workflow.due.acme"
    assert Source("acme", "steps", "gpu").subject == "workflow.steps.acme.gpu"
