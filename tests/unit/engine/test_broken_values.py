"""What somebody has overwritten in the engine's buckets: a snapshot is made anew, a definition is named."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.unit.room import TENANT, Room
from wpa.model.state import PACKED, decode_state

DEFINITION: dict[str, Any] = {
    "id": "w",
    "version": "1",
    "steps": [{"id": "a", "uses": "core.wait", "with": {"signal": "go"}}],
}
ANSWER = b'{"ok":true,"executions":[]}'


@pytest.fixture
def room() -> Iterator[Room]:
    with Room() as room:
        room.run(room.ok("deploy", document=DEFINITION))
        yield room


async def status(room: Room, execution: str) -> dict[str, Any]:
    found: dict[str, Any] = (await room.ok("status", execution_id=execution))["execution"]
    return found


async def waiting(room: Room, execution: str) -> None:
    await room.ok("start", workflow_id="w", execution_id=execution)
    await room.settled()


async def completed(room: Room, execution: str) -> None:
    async with asyncio.timeout(20):
        while (await status(room, execution))["status"] != "COMPLETED":
            await asyncio.sleep(0.001)


def forget(room: Room) -> None:
    """What a worker that has just been started doesn't know."""
    library = room.services.library
    library._programs.clear()
    library._forget("", "")


@pytest.mark.parametrize("junk", [ANSWER, b"", b"\xff", PACKED + b"zip", b'{"workflow": 1}', b"[" * 100_000])
def test_a_broken_snapshot_is_ignored_and_made_anew(
    room: Room, junk: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async def scene() -> None:
        await waiting(room, "x1")
        await waiting(room, "x2")
        other = room.server.executions.get(f"{TENANT}.x2")
        assert other is not None
        for value in (junk, other[0]):
            room.server.executions.put(f"{TENANT}.x1", value)
            assert (await status(room, "x1"))["status"] == "WAITING"
            assert "snapshot of acme.x1 is ignored, its journal is read" in caplog.text
            caplog.clear()
        await room.ok("signal", execution_id="x1", signal="go")
        await room.settled()
        kept = room.server.executions.get(f"{TENANT}.x1")
        assert kept is not None
        assert decode_state(kept[0]).status == "COMPLETED"
        assert "please report it" not in caplog.text

    room.run(scene())


@pytest.mark.parametrize("junk", [ANSWER, b"\xff"])
def test_a_broken_definition_is_named_and_mended_by_a_deploy(room: Room, junk: bytes) -> None:
    async def scene() -> None:
        await waiting(room, "x1")
        room.server.definitions.put(f"{TENANT}.w.1", junk)
        forget(room)
        for verb, body in (("start", {"workflow_id": "w"}), ("definition", {"workflow_id": "w"})):
            refused = await room.ask(verb, json.dumps(body).encode())
            assert refused["error"]["code"] == "broken_definition"
            assert "wpa_definitions acme.w.1" in refused["error"]["message"]
            assert "deploy it once more" in refused["error"]["message"]
        assert (await room.ok("definitions"))["definitions"] == []
        await room.ok("deploy", document=DEFINITION)
        await room.ok("signal", execution_id="x1", signal="go")
        await completed(room, "x1")

    room.run(scene())


def test_a_definition_that_this_version_can_not_load_is_named(room: Room) -> None:
    async def scene() -> None:
        stored = await room.services.ports.definitions.get(TENANT, "w", "1")
        assert stored is not None
        later = json.dumps({**DEFINITION, "version": "2", "of_another_version": True}).encode()
        value = {
            "workflow": "w",
            "version": "2",
            "hash": "",
            "kind": "plan",
            "deployed_at": stored.deployed_at,
        }
        data = json.dumps({**value, "document": json.loads(later)}).encode()
        room.server.definitions.put(f"{TENANT}.w.2", data)
        room.server.definitions.put(f"{TENANT}.w", b"2")
        forget(room)
        refused = await room.ask("start", b'{"workflow_id": "w"}')
        assert refused["error"]["code"] == "unavailable"
        assert "wpa_definitions acme.w.2 can't be loaded by this worker" in refused["error"]["message"]

    room.run(scene())
