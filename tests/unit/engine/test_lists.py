"""What is open is found however many others were active since."""

from __future__ import annotations

import pytest

from tests.unit.talk import Body, Talk, talking
from wpa.client.channel import Body as Answer
from wpa.client.listing import Listing
from wpa.engine import api_lists

ASKS = {
    "id": "asks",
    "version": "1",
    "steps": [
        {"id": "eva", "uses": "core.approval", "with": {"users": ["eva"]}},
        {"id": "leo", "uses": "core.approval", "with": {"users": ["leo"]}},
    ],
}
QUICK = {"id": "quick", "version": "1", "steps": [{"id": "a", "uses": "core.noop"}]}


class Asking(Listing):
    """A client that asks the API directly."""

    def __init__(self, talk: Talk) -> None:
        self._talk = talk

    async def request(self, verb: str, body: Answer) -> Answer:
        return await self._talk.ok(verb, **body)


class AskingBefore(Asking):
    """One that asks a worker of a release that did not say how far it has looked."""

    async def request(self, verb: str, body: Answer) -> Answer:
        answer = await super().request(verb, body)
        return {key: answer[key] for key in answer.keys() - {"more", "next", "looked_at"}}


@pytest.fixture(autouse=True)
def soon_weary(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api_lists, "LOOK_MAX", 3)


async def two_that_wait_behind(talk: Talk, count: int) -> None:
    for document in (ASKS, QUICK):
        await talk.ok("deploy", document=document)
    for execution in ("first", "second"):
        await talk.start(execution, "asks")
        await talk.comes_to(execution, "WAITING")
    for number in range(count):
        await talk.run(f"n{number}", "quick")


def names(rows: list[Body]) -> list[str]:
    return [row["execution_id"] for row in rows]


async def test_one_look_says_that_it_is_not_all_and_where_to_go_on() -> None:
    async with talking() as talk:
        await two_that_wait_behind(talk, 4)
        look = await talk.ok("list", status="WAITING")
        assert (look["executions"], look["more"], look["looked_at"]) == ([], True, 3)
        look = await talk.ok("list", status="WAITING", before=look["next"])
        assert (names(look["executions"]), look["more"], look["looked_at"]) == (["second"], True, 3)
        look = await talk.ok("list", status="WAITING", before=look["next"])
        assert (names(look["executions"]), look["more"], look["next"]) == (["first"], False, 0)

        look = await talk.ok("list", limit=5)
        assert (names(look["executions"]), look["more"]) == (["n3", "n2", "n1", "n0", "second"], True)
        look = await talk.ok("list", limit=5, before=look["next"])
        assert (names(look["executions"]), look["more"]) == (["second", "first"], False)


async def test_what_is_enough_for_an_answer_is_where_the_next_one_goes_on() -> None:
    async with talking() as talk:
        await two_that_wait_behind(talk, 0)
        look = await talk.ok("list", limit=1, status="waiting, paused")
        assert (names(look["executions"]), look["more"], look["looked_at"]) == (["second"], True, 1)
        look = await talk.ok("list", limit=1, status="waiting, paused", before=look["next"])
        assert (names(look["executions"]), look["more"]) == (["first"], False)
        look = await talk.ok("approvals", limit=1)
        assert [(row["execution_id"], row["step"]) for row in look["approvals"]] == [
            ("second", "eva"),
            ("second", "leo"),
        ]
        assert look["more"]


async def test_who_has_gone_on_since_is_told_as_it_is_now() -> None:
    async with talking() as talk:
        await two_that_wait_behind(talk, 2)
        look = await talk.ok("list", status="WAITING", limit=1)
        assert names(look["executions"]) == ["second"]
        await talk.ok("terminate", execution_id="first")
        await talk.comes_to("first", "CANCELLED")
        look = await talk.ok("list", status="WAITING", before=look["next"])
        assert (look["executions"], look["more"]) == ([], False)


async def test_the_client_asks_until_all_were_looked_at() -> None:
    async with talking() as talk:
        await two_that_wait_behind(talk, 10)
        client, far = Asking(talk), list[int]()
        assert names(await client.approvals(looked=far.append)) == ["first", "first", "second", "second"]
        assert far[:3] == [3, 6, 9]
        assert names(await client.approvals(limit=1)) == ["first"]
        assert names(await client.executions(status="waiting")) == ["second", "first"]
        assert names(await client.executions(status="waiting", limit=1)) == ["second"]
        assert len(await client.executions(limit=None)) == 12
        assert names(await client.executions(limit=2)) == ["n9", "n8"]
        assert names(await client.executions(workflow="asks", limit=None)) == ["second", "first"]


async def test_a_worker_of_before_is_asked_once() -> None:
    async with talking() as talk:
        await two_that_wait_behind(talk, 0)
        client = AskingBefore(talk)
        assert names(await client.executions(status="WAITING")) == ["second", "first"]
        assert len(await client.approvals()) == 4
