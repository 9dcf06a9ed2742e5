"""Schedules on a real server: nobody waits for them to be due, and nothing that dies makes them count twice."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.e2e.processes import Wpa, invoke_wpa
from tests.servers import NatsServer
from tests.waiting import until
from wpa.client import Client
from wpa.errors import TaskRejected
from wpa.model.times import parse_ms

Start = Callable[..., Wpa]

LATE_MS = 10_000
"""Of a server and a worker that have other things to do; on a quiet machine it is a tenth of a second."""
EVERY_S = {"cron": "* * * * * *"}
EVERY_2S = {"cron": "*/2 * * * * *", "input": {"n": 7}}


def definition(version: str = "1", seconds: float = 0, **schedule: Any) -> dict[str, Any]:
    document: dict[str, Any] = {
        "id": "tick",
        "version": version,
        "steps": [{"id": "work", "uses": "e2e.work", "with": {"seconds": seconds, "answer": "${input}"}}],
    }
    return document | ({"schedule": schedule} if schedule else {})


async def row(client: Client) -> dict[str, Any]:
    (found,) = await client.schedules()
    return found


async def runs(client: Client) -> list[str]:
    """The executions that were started, in their order."""
    return sorted(found["execution_id"] for found in await client.executions(limit=200, workflow="tick"))


def moments(names: list[str]) -> list[int]:
    """The seconds of Unix time in the names of executions."""
    stamps = [name.rpartition("-")[2] for name in names]
    return [parse_ms(f"{s[:4]}-{s[4:6]}-{s[6:11]}:{s[11:13]}:{s[13:]}") // 1_000 for s in stamps]


async def test_each_moment_starts_one_execution_with_several_workers_there(
    start_worker: Start, client: Client
) -> None:
    for _ in range(2):
        start_worker()
    await client.deploy(definition(**EVERY_2S, overlap="allow", catch_up="all"))
    await until(lambda: _at_least(client, 3))
    await until(lambda: _no_gap(client, 2))
    names = await runs(client)
    assert {moment % 2 for moment in moments(names)} == {0}
    done = await client.result(names[0], timeout_s=30)
    assert (done["status"], done["input"], done["metadata"]["source"]) == ("COMPLETED", {"n": 7}, "schedule")
    started = (await client.history(names[0]))[0]
    times = started["data"]["context"]["schedule"]
    assert 0 <= parse_ms(started["timestamp"]) - parse_ms(times["scheduled_for"]) < LATE_MS
    assert await client.dlq_list() == []


async def _at_least(client: Client, count: int) -> bool:
    return len(await runs(client)) >= count


async def _no_gap(client: Client, period_s: int) -> bool:
    """Whether each moment from the first to the last has started its execution; the latest may overtake."""
    found = moments(await runs(client))
    return found == list(range(found[0], found[-1] + 1, period_s))


async def test_pause_resume_trigger_delete(start_worker: Start, client: Client, server: NatsServer) -> None:
    start_worker()
    await client.deploy(definition(**EVERY_S))
    await until(lambda: _at_least(client, 1))
    await client.pause_schedule("tick")
    paused_at = time.time()
    paused = await row(client)
    assert (paused["paused"], paused["next_at"]) == (True, None)
    await asyncio.sleep(1.5)
    before = await runs(client)
    assert moments(before)[-1] <= paused_at
    manual = await client.trigger_schedule("tick")
    assert manual.startswith("tick-manual-")
    assert (await client.result(manual, timeout_s=30))["status"] == "COMPLETED"
    await client.resume_schedule("tick")
    await until(lambda: _at_least(client, len(before) + 2))
    await client.delete_schedule("tick")
    assert await client.schedules() == []
    with pytest.raises(TaskRejected, match="has no schedule") as refused:
        await client.pause_schedule("tick")
    assert refused.value.code == "unknown_schedule"


async def test_one_that_still_runs_is_skipped_or_cancelled(start_worker: Start, client: Client) -> None:
    start_worker()
    await client.deploy(definition(seconds=600, **EVERY_S))

    async def skipped() -> bool:
        found = await row(client)
        return bool(found["skipped"] >= 2)

    await until(skipped)
    (first,) = await runs(client)
    assert (await client.status(first))["status"] == "RUNNING"
    await client.deploy(definition("2", seconds=600, **EVERY_S, overlap="cancel_old"))
    assert (await client.result(first, timeout_s=30))["status"] == "CANCELLED"
    await until(lambda: _at_least(client, 3))


async def test_a_killed_worker_and_a_killed_server_lose_no_moment_and_double_none(
    start_worker: Start, client: Client, server: NatsServer
) -> None:
    workers = [start_worker(), start_worker()]
    await client.deploy(definition(**EVERY_S, overlap="allow", catch_up="all"))
    await until(lambda: _at_least(client, 2))
    workers[0].kill()
    await asyncio.sleep(2.2)
    server.kill()
    await asyncio.sleep(3.2)
    server.start()
    back = int(time.time())

    async def goes_on() -> bool:
        return bool(moments(await runs(client))[-1] > back + 2)

    await until(goes_on, within_s=60)
    await until(lambda: _no_gap(client, 1))
    assert await client.dlq_list() == []


async def test_a_server_killed_over_a_moment_makes_up_for_it_when_it_is_back_and_keeps_the_phase(
    start_worker: Start, client: Client, server: NatsServer
) -> None:
    start_worker()
    await client.deploy(definition(every="6s", overlap="allow", catch_up="all"))
    due_s = parse_ms((await row(client))["next_at"]) / 1_000
    server.kill()
    await asyncio.sleep(max(0.0, due_s + 1 - time.time()))
    server.start()
    back = time.time()
    await until(lambda: _at_least(client, 1))
    (name,) = (await runs(client))[:1]
    assert moments([name]) == [due_s]
    started = (await client.history(name))[0]
    assert parse_ms(started["timestamp"]) - back * 1_000 < LATE_MS, "soon after the recovery"
    await until(lambda: _at_least(client, 2))
    assert moments(await runs(client))[:2] == [due_s, due_s + 6]
    assert await client.dlq_list() == []


async def test_without_any_worker_the_moments_wait_and_one_is_made_up_for(
    start_worker: Start, client: Client
) -> None:
    worker = start_worker()
    await client.deploy(definition(every="8s", overlap="allow"))
    due_s = parse_ms((await row(client))["next_at"]) / 1_000
    assert worker.stop() == 0
    # Two moments; the second is no longer on time, and the third is not near.
    await asyncio.sleep(max(0.0, due_s + 8 + 5.2 - time.time()))
    start_worker()
    await until(lambda: _at_least(client, 1))

    async def missed() -> int:
        return int((await row(client))["missed"])

    # One, unless the new worker has taken longer than a period to start.
    assert moments(await runs(client))[0] == due_s + 8 * await until(missed)


async def test_a_new_version_without_a_schedule_ends_it(start_worker: Start, client: Client) -> None:
    start_worker()
    await client.deploy(definition(**EVERY_S))
    await until(lambda: _at_least(client, 1))
    await client.deploy(definition("2"))
    ended_at = time.time()
    assert await client.schedules() == []
    await asyncio.sleep(1.5)
    assert moments(await runs(client))[-1] <= ended_at


async def test_a_bad_schedule_is_refused_with_what_to_write(
    worker: Wpa, nats_server: NatsServer, tenant: str
) -> None:
    async with await Client.connect(nats_server.url, tenant) as client:
        problems = await client.validate(definition(cron="0 6 * * *"))
        assert "put the seconds first" in str(problems[0])


def test_the_commands(worker: Wpa, nats_server: NatsServer, tenant: str, tmp_path: Any) -> None:
    path = tmp_path / "tick.json"
    path.write_text(json.dumps(definition(cron="0 0 6 * * *", time_zone="Europe/Madrid")))
    url = nats_server.url
    assert invoke_wpa("deploy", str(path), url=url, tenant=tenant).returncode == 0
    listed = invoke_wpa("schedule", "list", url=url, tenant=tenant)
    assert listed.returncode == 0, listed.stderr
    assert "tick" in listed.stdout
    assert invoke_wpa("schedule", "pause", "tick", url=url, tenant=tenant).returncode == 0
    assert invoke_wpa("schedule", "trigger", "tick", url=url, tenant=tenant).returncode == 0
    assert invoke_wpa("schedule", "delete", "tick", url=url, tenant=tenant).returncode == 0
