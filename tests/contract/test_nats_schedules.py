"""What the real server does with alarms, and that wpa reads cron as the server does."""

from __future__ import annotations

import asyncio
import random
import uuid
from collections.abc import AsyncIterator

import pytest

from tests.contract.test_timers import LATE_MS, listen
from tests.contract.worlds import Hands, NatsWorld
from tests.servers import NatsServer
from tests.waiting import until
from wpa.adapters.nats import NatsPorts, open_ports, streams, timers, transport
from wpa.adapters.nats.api import api
from wpa.adapters.nats.consumers import consumer_name
from wpa.adapters.nats.timers import LAST_MS
from wpa.adapters.nats.transport import Refused
from wpa.errors import PlatformError
from wpa.model import cron
from wpa.model.times import parse_ms, rfc3339
from wpa.ports.tasks import Source

TAKEN = [
    "* * * * * *", "0 0 9 * * *", "0 0 9 * * MON-FRI", "0 0 9 * * mon,wed", "0 0 0 1 JAN *", "? ? ? ? ? ?",
    "*/15 * * * * *", "5/15 * * * * *", "0-30/7 * * * * *", "0 0 0 29 2 *", "0 0 0 31 * *", "0 0 0 30 2 1",
    "0  0 0 1 1 *", "00 00 09 01 01 *", "0 0 0 1,,2 * *", "0 0 0 1,2, * *", "*/99 * * * * *", "0 0 0 30 2 */2",
    "@hourly", "@daily", "@midnight", "@weekly", "@monthly", "@yearly", "@annually",
    "@every 1s", "@every 90s", "@every 1h30m", "@every 1.5h", "@every .5m", "@every 1000ms", "@every 01s",
]  # fmt: skip
REFUSED = [
    "*", "* * * * *", "* * * * * * *", "60 * * * * *", "* 60 * * * *", "* * 24 * * *", "* * * 0 * *",
    "* * * 32 * *", "* * * * 0 *", "* * * * 13 *", "* * * * * 7", "-1 * * * * *", "5-1 * * * * *",
    "*/0 * * * * *", "1-2-3 * * * * *", "*/2/3 * * * * *", "a * * * * *", "* * * * * FUNDAY", "* * * * MON *",
    "0 0 0 30 2 *", "0 0 0 31 4,6,9,11 *", "1.5 * * * * *", "*/x * * * * *", "MON * * * * *",
    "@noon", "@Daily", "@every", "@every ", "@every 5", "@every 1d", "@every 1y", "@every -5s", "@every 0s",
    "@every 0.5s", "@every 999ms", "@every  5s", "@EVERY 5s", "@every 5 s", "@every 9999999h", "@at 2020",
    "@at never",
]  # fmt: skip
STRICTER = ["", "*-5 * * * * *", "+5 * * * * *", "@every 1500ms", "@every +5s", "@every 2000000h"]
"""The server takes these; wpa does not, since nobody means what it makes of them."""

STALLS = ", * * * * *"
"""What the server refuses, too, but only after seconds in which it does nothing else."""

ZONES = ["", "UTC", "Europe/Berlin", "America/Argentina/Buenos_Aires", "CET", "Etc/GMT+5", "Asia/Kolkata"]
NO_ZONES = ["Nowhere/Town", "europe/berlin", "Europe", "../etc/passwd", "/etc/localtime", "+02:00", "Europe/"]


@pytest.fixture
async def ports(nats_server: NatsServer, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[NatsPorts]:
    """A connection with patience: to find that a schedule never fires, the server computes for a while."""
    monkeypatch.setattr(transport, "ACK_TIMEOUT_S", 60.0)
    ports = await open_ports(nats_server.url, worker="contract")
    yield ports
    await ports.aclose()


async def repeat(ports: NatsPorts, tenant: str, name: str, spec: str, time_zone: str) -> None:
    """Have the server fire by a schedule of its own."""
    lines = f"Nats-Schedule: {spec}\r\nNats-Schedule-Target: workflow.due.{tenant}\r\n"
    if time_zone:
        lines += f"Nats-Schedule-Time-Zone: {time_zone}\r\n"
    subject = f"workflow.timers.{tenant}.{name}.schedule"
    await ports.transport.publish_acked(subject, name.encode(), lines.encode())


async def takes(ports: NatsPorts, spec: str, time_zone: str = "") -> bool:
    """Whether the server stores the schedule; it is taken away again at once."""
    tenant = f"t-{uuid.uuid4().hex[:16]}"
    try:
        await repeat(ports, tenant, "report", spec, time_zone)
    except Refused:
        return False
    await ports.timers.clear(tenant, "report.schedule")
    return True


def checks(spec: str, time_zone: str = "") -> bool:
    try:
        cron.check(spec, time_zone)
    except ValueError:
        return False
    return True


@pytest.mark.parametrize("spec", [*TAKEN, *REFUSED])
async def test_wpa_and_the_server_take_and_refuse_the_same(ports: NatsPorts, spec: str) -> None:
    assert await takes(ports, spec) is checks(spec) is (spec in TAKEN)


def test_what_stalls_the_server_is_never_sent() -> None:
    assert not checks(STALLS)


@pytest.mark.parametrize("spec", STRICTER)
async def test_where_wpa_is_stricter(ports: NatsPorts, spec: str) -> None:
    assert await takes(ports, spec)
    assert not checks(spec)


@pytest.mark.parametrize("zone", [*ZONES, *NO_ZONES])
async def test_they_know_the_same_time_zones(ports: NatsPorts, zone: str) -> None:
    assert await takes(ports, "0 0 9 * * *", zone) is checks("0 0 9 * * *", zone) is (zone in ZONES)


def a_field(dice: random.Random) -> str:
    """A field of cron, or something near one."""
    number = lambda: str(dice.choice([0, 1, 2, 5, 6, 7, 12, 23, 24, 28, 29, 30, 31, 32, 59, 60]))  # noqa: E731
    name = lambda: dice.choice(["JAN", "dec", "Mon", "SUN", "sat", "feb"])  # noqa: E731
    item = dice.choice(
        [
            lambda: "*",
            lambda: "?",
            number,
            name,
            lambda: f"{number()}-{number()}",
            lambda: f"{name()}-{name()}",
            lambda: f"*/{number()}",
            lambda: f"{number()}/{number()}",
            lambda: f"{number()}-{number()}/{number()}",
        ]
    )
    return ",".join(item() for _ in range(dice.choice([1, 1, 1, 2, 3])))


async def test_whatever_is_thrown_at_them_they_agree(ports: NatsPorts) -> None:
    dice = random.Random(4711)
    anything = ("*",) * 6
    specs: list[str] = []
    for _ in range(600):
        fields = list(anything)
        for place in dice.sample(range(6), dice.choice([1, 1, 2, 3])):
            fields[place] = a_field(dice)
        specs.append(" ".join(fields))
    taken = await asyncio.gather(*(takes(ports, spec) for spec in specs))
    assert [spec for spec, there in zip(specs, taken, strict=True) if there is not checks(spec)] == []
    assert 50 < sum(taken) < 550, "both answers have been asked for"


async def test_the_next_moment_is_the_servers_own(ports: NatsPorts, tenant: str) -> None:
    specs = {"a": "*/2 * * * * *", "b": "@every 3s", "c": "*/2 0-59 * * * ?", "d": "* */2 * * * *"}
    for name, spec in specs.items():
        zone = "" if spec.startswith("@") else "Australia/Adelaide"
        await repeat(ports, tenant, name, spec, zone)
    hands = Hands()
    (await ports.tasks.open(Source(tenant, "due"), hands)).request(500)
    told: dict[str, set[bool]] = {name: set() for name in specs}

    def agreed() -> bool:
        for lease in hands.leases:
            fired_ms = int(lease.identity.split("-")[1], 16) // 1_000_000
            headers = lease._message.headers  # type: ignore[attr-defined]
            name, following_ms = lease.data.decode(), parse_ms(headers["Nats-Schedule-Next"])
            ours_ms = cron.next_after(specs[name], "", fired_ms // 1_000 * 1_000)
            told[name].add(ours_ms == following_ms)
        hands.leases.clear()
        return all(True in told[name] for name in "abc")

    await until(agreed)  # at a firing: one that is late by a second is of the moment before
    for name in specs:
        await ports.timers.clear(tenant, f"{name}.schedule")
    assert told["d"] != {False}


async def test_the_last_moment_that_the_server_can_count(ports: NatsPorts, tenant: str) -> None:
    """Were it to count further one day, nothing breaks; were it to count less, this fails."""
    bell = await listen(ports, tenant)
    await ports.timers.set(tenant, "x1.wake", LAST_MS, b"")
    await asyncio.sleep(0.8)
    assert bell.leases == []


async def test_a_new_alarm_is_kept_or_the_one_before_rings_after_it(ports: NatsPorts, tenant: str) -> None:
    """The port's promise, where alarms are replaced just while they ring: some of the new ones are lost."""
    hands = Hands()
    (await ports.tasks.open(Source(tenant, "due"), hands)).request(2_000)
    at_ms, far_ms = ports.clock.now_ms() + 800, ports.clock.now_ms() + 3_600_000
    names = [f"x{n}" for n in range(1_000)]
    await asyncio.gather(*(ports.timers.set(tenant, f"{name}.wake", at_ms, name.encode()) for name in names))
    while ports.clock.now_ms() < at_ms - 20:
        await asyncio.sleep(0.005)
    lines = (
        f"Nats-Schedule: @at {rfc3339(far_ms)}\r\nNats-Schedule-Target: workflow.due.{tenant}\r\n".encode()
    )
    replaced: dict[str, int] = {}

    async def replace(name: str) -> None:
        subject = f"workflow.timers.{tenant}.{name}.wake"
        replaced[name] = await ports.transport.publish_acked(subject, b"", lines)

    for start in range(0, 1_000, 50):
        await asyncio.gather(*(replace(name) for name in names[start : start + 50]))
        await asyncio.sleep(0.01)
        if start == 450:
            await until(lambda: hands.leases)  # that none rings in time is no proof
    pattern = f"workflow.timers.{tenant}.*.wake"

    async def kept_or_rang_after_it() -> bool:
        info = await api(ports.transport, f"STREAM.INFO.{streams.TIMERS}", {"subjects_filter": pattern})
        kept = {subject.split(".")[3] for subject in info["state"].get("subjects") or {}}
        rang = {lease.data.decode(): lease.sequence for lease in hands.leases}
        assert kept, "some were replaced"
        return all(name in kept or rang.get(name, 0) > replaced[name] for name in names)

    await until(kept_or_rang_after_it)
    await asyncio.gather(*(ports.timers.clear(tenant, f"{name}.wake") for name in names))


async def test_a_due_feed_beside_30_000_alarms_that_are_not_due(server: NatsServer, tenant: str) -> None:
    world = NatsWorld(server.url)
    ports = await world.connect()
    later = ports.clock.now_ms() + 3_600_000
    for start in range(0, 30_000, 2_000):
        names = range(start, start + 2_000)
        await asyncio.gather(*(ports.timers.set(tenant, f"x{n}.wake", later, b"") for n in names))
    bell = await listen(ports, tenant)
    for n in range(5):
        now = ports.clock.now_ms()
        await ports.timers.set(tenant, "now.wake", now, b"now")
        await world.until(lambda: len(bell.leases) > n)  # noqa: B023  called at once
        assert bell.moments[-1] < now + LATE_MS
        await ports.timers.clear(tenant, f"x{n}.wake")
    await world.close()


@pytest.mark.parametrize("limit", ["max_msgs", "max_age", "max_bytes", "max_msgs_per_subject"])
async def test_a_stream_that_would_lose_timers_is_refused(server: NatsServer, limit: str) -> None:
    ports = await open_ports(server.url, worker="contract")
    config = (await api(ports.transport, f"STREAM.INFO.{streams.TIMERS}"))["config"]
    await api(ports.transport, f"STREAM.UPDATE.{streams.TIMERS}", {**config, limit: 10**9})
    await ports.aclose()
    with pytest.raises(PlatformError, match=f"WPA_TIMERS has {limit} = .* loses timers"):
        await open_ports(server.url, worker="contract")


def test_every_source_has_a_consumer_of_its_own() -> None:
    sources = [
        Source("a"), Source("a", "due"), Source("a", "steps", "b"), Source("a-b", "steps", "c"),
        Source("a", "steps", "b-c"), Source("a", "steps", "B"), Source("A"), Source("a b"), Source("ä"),
        Source("steps-a"), Source("-"), Source("a=b"), Source("x" * 63, "steps", "y" * 32),
    ]  # fmt: skip
    names = [consumer_name(source) for source in sources]
    assert len({name.lower() for name in names}) == len(names), names
    assert all(set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789=_-") for name in names), names
    assert names[0] == "tasks-a", "that of the versions before"


async def test_alarms_that_the_server_has_forgotten_are_named(server: NatsServer) -> None:
    ports = await open_ports(server.url, worker="w")
    now = ports.clock.now_ms()
    for number in range(3):
        await ports.timers.set("acme", f"x{number}.wake-1", now + 600_000 * (number + 1), b"")
    assert await timers.examine(ports.transport, now) == []
    assert await timers.examine(ports.transport, now + 600_000) == [], "not yet"
    (fault,) = await timers.examine(ports.transport, now + 1_300_000)
    assert "2 among the oldest" in fault
    assert "nats stream cluster step-down WPA_TIMERS" in fault
    await ports.close()
