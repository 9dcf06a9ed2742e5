"""The end that is recorded where the journal does not take what is to be: a legal one, in every status."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.unit.kernel.programs import Node, Toy
from tests.unit.kernel.table import Table
from wpa.kernel import requests
from wpa.kernel.draft import Draft
from wpa.kernel.oversize import NAMES_MAX, end_instead, fewer_names
from wpa.kernel.program import Retry, StepPolicy
from wpa.model import events as ev

WHY = "9 bytes; the server takes 8"
ONCE = StepPolicy(retry=Retry(max_attempts=1), on_error="compensate")


def running(table: Table) -> None:
    table.ok("a")


def paused(table: Table) -> None:
    table.ok("a")
    table.ask(requests.paused(table.state, {}, "", table.now_ms))


def undoing(table: Table) -> None:
    table.ok("a", "b")
    table.fail("c", retryable=False)
    table.ok("b:undo")
    assert table.state.status == "COMPENSATING"


@pytest.mark.parametrize(
    ("come_to", "event", "undone", "not_undone"),
    [
        (running, ev.FAILED, [], ["a"]),
        (paused, ev.CANCELLED, [], ["a"]),
        (undoing, ev.FAILED, ["b"], ["a"]),
    ],
)
def test_it_ends_as_it_may(
    come_to: Callable[[Table], None], event: str, undone: list[str], not_undone: list[str]
) -> None:
    nodes = [Node("a", undo=True), Node("b", "a", undo=True), Node("c", "b", policy=ONCE)]
    table = Table(Toy(*nodes))
    come_to(table)
    draft = Draft(ev.STEP_COMPLETED, {"step": "b"}, table.now_ms)
    end = end_instead(draft, table.state, table.execution.run_view(), WHY)
    assert end is not None
    table.record(end)
    state = table.folded()
    assert state.error is not None
    assert (state.error.type, state.error.message) == (
        "OverLimit", f"workflow_step_completed of b can't be recorded: {WHY}",
    )  # fmt: skip
    assert (table.last.event, state.undone, state.not_undone) == (event, undone, not_undone)
    assert state.open == []
    assert end_instead(end, state, table.execution.run_view(), WHY) is None


def test_an_end_names_no_more_than_there_is_room_for() -> None:
    names = [f"s{n}" for n in range(NAMES_MAX + 1)]
    data: dict[str, Any] = {"undone": names[:2], "not_undone": names, "duration_ms": 1}
    end = fewer_names(Draft(ev.CANCELLED, data, 0))
    assert end is not None
    assert (end.data["undone"], end.data["not_undone"]) == (names[:2], names[:NAMES_MAX])
    assert (
        end.data["error"].message == f"not_undone has {NAMES_MAX + 1} names, of which these are {NAMES_MAX}"
    )
    assert fewer_names(end) is None
    assert data["not_undone"] == names
