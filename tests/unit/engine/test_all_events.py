"""The verb that reads all journals as one: page by page, in order, and up to the end."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.talk import Body, talking
from wpa.model.limits import Limits
from wpa.ports.journal import EVERY, Stored

QUICK = {"id": "quick", "version": "1", "steps": [{"id": "a", "uses": "core.noop"}]}


async def test_it_is_read_in_pages() -> None:
    async with talking(limits=Limits(answer_bytes_max=4_000)) as talk:
        await talk.ok("deploy", document=QUICK)
        begin = (await talk.ok("events"))["next"]
        for name in ("x", "y", "z"):
            await talk.run(name, "quick", text="x" * 1_000)
        found, page = [], {"next": begin, "more": True}
        pages = 0
        while page["more"]:
            page = await talk.ok("events", after=page["next"])
            found += page["events"]
            pages += 1
        assert pages > 1
        journal = talk.services.ports.journal
        assert [event["id"] for event in found] == [
            event.id for _, event in await journal.read("acme", EVERY)
        ]
        assert page["next"] == (await talk.ok("events"))["next"]


async def test_a_replica_that_lags_is_not_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    async with talking() as talk:
        await talk.ok("deploy", document=QUICK)
        await talk.run("x", "quick")
        read = talk.services.ports.journal.read

        async def lagging(*asked: Any) -> list[Stored]:
            return (await read(*asked))[:1] if asked[2] < first else []

        first = (await read("acme", EVERY))[0][0]
        monkeypatch.setattr(talk.services.ports.journal, "read", lagging)
        page = await talk.ok("events", after=0)
        assert (len(page["events"]), page["more"], page["next"]) == (1, True, first)
        assert await talk.ok("events", after=first) == {"ok": True, "events": [], "more": True, "next": first}


async def test_a_position_past_the_end_is_of_another_stream() -> None:
    async with talking() as talk:
        await talk.ok("deploy", document=QUICK)
        await talk.run("x", "quick")
        end: Body = await talk.ok("events")
        assert await talk.ok("events", after=1_000_000) == end
