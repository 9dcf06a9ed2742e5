"""An object store that takes nothing for a while: what was done is held, and not done again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.unit.talk import Talk, talking
from wpa.engine import attempts, patience
from wpa.errors import Unavailable

LARGE = 100_000
"""More characters than a journal takes inline."""


@pytest.fixture
async def talk(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Talk]:
    monkeypatch.setattr(patience, "RETRY_S", 0.01)
    monkeypatch.setattr(patience, "RETRY_MAX_S", 0.01)
    async with talking() as talk:
        yield talk


def refusing(talk: Talk, monkeypatch: pytest.MonkeyPatch, tries: int) -> list[str]:
    """The keys under which the object store has refused to store something; it does so ``tries`` times."""
    keys: list[str] = []
    blobs = talk.services.ports.blobs
    put = blobs.put

    async def refuse(key: str, data: bytes) -> None:
        if len(keys) < tries:
            keys.append(key)
            raise Unavailable("there is no room")
        await put(key, data)

    monkeypatch.setattr(blobs, "put", refuse)
    return keys


def slow(talk: Talk, monkeypatch: pytest.MonkeyPatch) -> tuple[asyncio.Event, asyncio.Event]:
    """Set when something is to be stored, and what to set to let it be: only the first takes so long."""
    storing, room = asyncio.Event(), asyncio.Event()
    blobs = talk.services.ports.blobs
    put = blobs.put

    async def slowly(key: str, data: bytes) -> None:
        if not storing.is_set():
            storing.set()
            await room.wait()
        await put(key, data)

    monkeypatch.setattr(blobs, "put", slowly)
    return storing, room


def starts(talk: Talk) -> list[int]:
    return [event["attempt"] for _, event in talk.seen if event["event"] == "step_started"]


@pytest.mark.parametrize("once", [False, True])
async def test_a_step_whose_output_cannot_be_stored_yet_is_not_run_again(
    talk: Talk, monkeypatch: pytest.MonkeyPatch, once: bool
) -> None:
    make: dict[str, Any] = {"id": "make", "uses": "core.echo", "at_most_once": once}
    make["with"] = {"text": "${" + " + ".join(["input.text"] * 10) + "}"}
    await talk.ok("deploy", document={"id": "order", "version": "1", "steps": [make]})
    refused = refusing(talk, monkeypatch, tries=15)
    ended = await talk.run("x", text="x" * (LARGE // 10))
    assert (ended["status"], ended["error"]) == ("COMPLETED", None)
    assert len(refused) == 15
    assert starts(talk) == [1]


async def test_an_end_that_cannot_be_stored_yet_is_waited_for(
    talk: Talk, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = [{"id": "make", "uses": "core.echo", "with": {"text": "${input.text}"}}]
    output = "${" + " + ".join(["steps.make.output.text"] * 10) + "}"
    await talk.ok("deploy", document={"id": "order", "version": "1", "steps": steps, "output": output})
    refused = refusing(talk, monkeypatch, tries=15)
    ended = await talk.run("x", text="x" * (LARGE // 10))
    assert (ended["status"], ended["error"]) == ("COMPLETED", None)
    assert len(refused) == 15
    assert "workflow_recovered" not in [event["event"] for _, event in talk.seen]


async def test_what_was_done_is_undone_however_long_its_output_takes_to_be_stored(
    talk: Talk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attempts, "STOP_WITHIN_S", 0.1)
    make: dict[str, Any] = {"id": "make", "uses": "core.echo", "compensate": {"uses": "core.echo"}}
    make["with"] = {"text": "${" + " + ".join(["input.text"] * 10) + "}"}
    beside = {"id": "beside", "uses": "core.sleep", "with": {"for": "1h"}}
    await talk.ok("deploy", document={"id": "order", "version": "1", "steps": [make, beside]})
    storing, room = slow(talk, monkeypatch)
    await talk.start("x", text="x" * (LARGE // 10))
    await storing.wait()
    await talk.ok("cancel", execution_id="x")
    await asyncio.sleep(0.5)
    room.set()
    await talk.comes_to("x", "CANCELLED")
    ended = next(event for _, event in talk.seen if event["event"] == "workflow_cancelled")
    assert ended["data"]["undone"] == ["make"]


async def test_a_signal_that_cannot_be_read_yet_ends_no_step(
    talk: Talk, monkeypatch: pytest.MonkeyPatch
) -> None:
    make: dict[str, Any] = {"id": "make", "uses": "core.echo"}
    make["with"] = {"text": "${" + " + ".join(["input.text"] * 10) + "}"}
    wait = {"id": "wait", "uses": "core.wait", "with": {"signal": "go"}}
    await talk.ok("deploy", document={"id": "order", "version": "1", "steps": [make, wait]})
    storing, room = slow(talk, monkeypatch)
    blobs = talk.services.ports.blobs
    get, refused = blobs.get, []

    async def refuse(key: str) -> bytes:
        if len(refused) < 5:
            refused.append(key)
            raise Unavailable("there is no leader")
        return await get(key)

    monkeypatch.setattr(blobs, "get", refuse)
    await talk.start("x", text="x" * (LARGE // 10))
    await storing.wait()
    await talk.ok("signal", execution_id="x", signal="go", payload="y" * LARGE)
    await asyncio.sleep(0.2)
    room.set()
    await talk.comes_to("x", "COMPLETED")
    assert len(refused) == 5
    assert starts(talk) == [1]
