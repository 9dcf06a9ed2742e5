"""The checker's own reading of a flow that cleans up, beside the engine's."""

from __future__ import annotations

import asyncio
import json

import pytest

from tests.checker.facts import Body, Recorded
from tests.checker.fold import Fold, walk
from tests.checker.forms import normal
from wpa.flows import call, flow, signal
from wpa.kernel.fold import fold
from wpa.model.codec import decode_event, encode_event
from wpa.model.state import State, encode_state
from wpa.testing import run


@flow("guest", timeout=3600)
async def guest() -> None:
    await call("room.book", step_name="book", undo="room.free")
    try:
        await signal("leave")
    finally:
        await asyncio.sleep(60)
        await call("desk.tell", step_name="tell")


@pytest.fixture
def journal() -> list[Recorded]:
    mocks = {"room.book": "r-1", "room.free": None, "desk.tell": None}
    result = run(guest, mocks=mocks, script=lambda run: run.cancel("no more", compensate=False, at="10m"))
    bodies: list[Body] = [json.loads(encode_event(event)) for event in result.events]
    return [Recorded("workflow.events.test.guest-1", n, 0, body) for n, body in enumerate(bodies, 1)]


def test_after_each_event_it_reads_what_the_engine_reads(journal: list[Recorded]) -> None:
    state: State | None = None
    reading = Fold()
    for event in journal:
        reading.apply(event)
        state = fold(state, decode_event(json.dumps(event.body).encode()))
        state.position = event.sequence
        assert reading.snapshot() == normal(json.loads(encode_state(state)))
    assert reading.complaints == []
    assert reading["cleanup"]["after"] == 1


def test_a_clean_up_needs_a_reason(journal: list[Recorded]) -> None:
    without = [event for event in journal if event.name != "workflow_cancel_requested"]
    complaints = [what for reading, _ in walk(without) for _, what in reading.complaints]
    assert "it cleans up, and has no reason to, or does so already" in complaints
