"""An answer is lost on its way: the client asks again, as the same ask, and is told that it was done."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from typing import Any

import nats.errors
import pytest

from tests.e2e.asking import GO, comes_to, names, plan, status_when
from tests.e2e.processes import Wpa
from tests.servers import NatsServer
from tests.waiting import until
from wpa.client import Client
from wpa.errors import TaskRejected

ONCE_MORE = {"uses": "core.fail", "with": {"until_attempt": 2}, "retry": {"max_attempts": 1}}
ASK = {"uses": "core.approval", "repeat": {"until": "index == 1", "max": 5}}


@pytest.fixture
async def client(nats_server: NatsServer, tenant: str, worker: Wpa) -> AsyncIterator[Client]:
    async with await Client.connect(nats_server.url, tenant) as client:
        yield client


class Losing:
    """A connection that loses the first answer, and comes to know of it after ``meanwhile`` only."""

    def __init__(self, client: Client, meanwhile: Awaitable[Any]) -> None:
        self._connection = client._nc
        self.refusal = ""
        self._meanwhile: Awaitable[Any] | None = meanwhile

    async def request(self, subject: str, payload: bytes, timeout: float) -> Any:
        answer = await self._connection.request(subject, payload, timeout=timeout)
        meanwhile, self._meanwhile = self._meanwhile, None
        if meanwhile is None:
            return answer
        await meanwhile
        raise nats.errors.TimeoutError


def far(client: Client, meanwhile: Awaitable[Any]) -> Client:
    """A client whose first answer is lost."""
    return Client(Losing(client, meanwhile), client.tenant)  # type: ignore[arg-type]


async def waits(client: Client, step: dict[str, Any]) -> None:
    """Start ``x``, which has this one step and waits at it."""
    await client.deploy(plan({"id": "a", **step}))
    await client.start("w", execution_id="x")
    await comes_to(client, "x", "WAITING")


async def fails(client: Client) -> None:
    """Start ``x``, which fails at first, and would not a second time."""
    await client.deploy(plan({"id": "a", **ONCE_MORE}))
    await client.start("w", execution_id="x")
    await comes_to(client, "x", "FAILED")


async def goes_on(client: Client) -> None:
    """Bring ``x`` to its end."""
    await client.signal("x", "go")
    await comes_to(client, "x", "COMPLETED")


async def times(client: Client, event: str) -> int:
    return names(await client.history("x")).count(event)


async def test_a_resume_is_known_again_after_the_end(client: Client) -> None:
    await waits(client, GO)
    await client.pause("x")
    assert (await far(client, goes_on(client)).resume("x")).duplicate
    assert await times(client, "resumed") == 1


async def test_a_pause_is_known_again_after_the_resume(client: Client) -> None:
    await waits(client, GO)

    async def resumed() -> None:
        await comes_to(client, "x", "PAUSED")
        await client.resume("x")
        await comes_to(client, "x", "WAITING")

    assert (await far(client, resumed()).pause("x")).duplicate
    await goes_on(client)
    assert await times(client, "paused") == 1


async def test_a_retry_is_known_again_after_its_end(client: Client) -> None:
    await fails(client)
    assert (await far(client, comes_to(client, "x", "COMPLETED")).retry("x")).duplicate
    assert await times(client, "resumed") == 1


async def test_a_migration_is_known_again_after_the_end(client: Client) -> None:
    await client.deploy(plan({"id": "a", **GO}, version="2"))
    await waits(client, GO)

    async def moved_and_ended() -> None:
        await status_when(client, "x", lambda found: found["version"] == "2" and found["at_rest"])
        await goes_on(client)

    assert (await far(client, moved_and_ended()).migrate("x", "2")).duplicate
    assert await times(client, "migrated") == 1


async def test_a_cancel_and_a_terminate_are_known_again_after_the_end(client: Client) -> None:
    await waits(client, GO)
    assert (await far(client, comes_to(client, "x", "CANCELLED")).cancel("x")).duplicate
    await client.start("w", execution_id="y")
    await comes_to(client, "y", "WAITING")
    assert (await far(client, comes_to(client, "y", "CANCELLED")).terminate("y")).duplicate


async def test_an_answer_is_known_again_when_the_step_asks_once_more(client: Client) -> None:
    await waits(client, ASK)

    async def asked_once_more() -> None:
        await status_when(client, "x", lambda found: found["waiting_for"][0]["slot"] != first)

    first = (await client.status("x"))["waiting_for"][0]["slot"]
    answer = await far(client, asked_once_more()).approve("x", "a", user="ada")
    assert answer.duplicate
    assert await times(client, "signalled") == 1
    assert not (await client.approve("x", "a", user="ada")).duplicate
    await comes_to(client, "x", "COMPLETED")


async def test_who_answers_without_a_name_is_none_of_two_people(client: Client) -> None:
    await waits(client, {"uses": "core.approval", "with": {"count": 2}})
    with pytest.raises(TaskRejected, match=r"not_allowed: 2 different people .* metadata.user_id"):
        await client.approve("x", "a")
    assert not (await client.approve("x", "a", user="ana")).duplicate
    await until(lambda: times(client, "signalled"))
    assert (await client.approve("x", "a", user="ana", id="another")).duplicate
    assert await times(client, "signalled") == 1


async def test_an_id_makes_two_calls_one_ask(client: Client, nats_server: NatsServer) -> None:
    await fails(client)
    assert not (await client.retry("x", id="ticket-7")).duplicate
    await comes_to(client, "x", "COMPLETED")
    async with await Client.connect(nats_server.url, client.tenant) as another:
        assert (await another.retry("x", id="ticket-7")).duplicate


async def test_a_schedule_triggered_again_after_a_second_starts_once(client: Client) -> None:
    await client.deploy(plan({"id": "a", "uses": "core.noop"}, schedule={"every": "1h"}))
    execution = await far(client, asyncio.sleep(1.1)).trigger_schedule("w")
    assert [row["execution_id"] for row in await client.executions()] == [execution]
