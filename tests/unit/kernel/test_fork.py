"""What a rerun may take over from an old execution, and what it begins with."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.unit.kernel.programs import Node, Toy
from tests.unit.kernel.table import Table
from wpa.errors import TaskRejected
from wpa.kernel import requests
from wpa.kernel.execution import Execution, Start
from wpa.kernel.fork import taken_over
from wpa.kernel.program import Retry, StepPolicy
from wpa.model.limits import Limits
from wpa.model.state import State

ONCE = StepPolicy(retry=Retry(max_attempts=1), on_error="compensate")


def order() -> Toy:
    return Toy(
        Node("look"),
        Node("reserve", "look", undo=True),
        Node("charge", "reserve", undo=True),
        Node("ship", "charge", policy=ONCE),
    )


def shipping_failed() -> Table:
    """``order`` in compensation: nothing is undone yet."""
    table = Table(order())
    table.ok("look", "reserve", "charge")
    table.fail("ship")
    return table


def rolled_back() -> Table:
    table = shipping_failed()
    table.ok("charge:undo", "reserve:undo")
    assert table.state.status == "ROLLED_BACK"
    return table


def refused(state: State, step: str) -> TaskRejected:
    with pytest.raises(TaskRejected) as refusal:
        taken_over(state, step)
    return refusal.value


def slots(state: State, step: str) -> list[str]:
    return [slot.id for slot in taken_over(state, step).settled]


def rerun(table: Table, step: str) -> dict[str, Any]:
    start = Start(tenant="acme", execution="x2", start_hash="h", taken=taken_over(table.state, step))
    _, draft = Execution.start(table.program, start, table.now_ms, Limits())
    return draft.data


@pytest.mark.parametrize("step", ["charge", "ship"])
def test_what_was_undone_is_not_taken_over_and_the_error_says_from_where_to_rerun(step: str) -> None:
    table = rolled_back()
    error = refused(table.state, step)
    assert error.code == "undone"
    assert "step reserve of execution x1 can't be taken over" in error.message
    named = re.search(r"`wpa rerun x1 --from (\S+)`", error.message)
    assert named is not None
    assert rerun(table, named[1])["next"] == ["reserve"]
    assert slots(table.state, "look") == []


def test_what_stands_is_taken_over_though_later_steps_were_undone() -> None:
    table = shipping_failed()
    table.ok("charge:undo")
    table.fail("reserve:undo", retryable=False)
    assert (table.state.status, table.state.not_undone) == ("FAILED", ["reserve"])
    # Whether a compensation that gave up had an effect, nobody knows.
    assert refused(table.state, "charge").code == "undone"
    assert slots(table.state, "reserve") == ["look"]


def test_a_failed_one_that_undid_nothing_is_taken_over_whole() -> None:
    once = StepPolicy(retry=Retry(max_attempts=1))
    table = Table(Toy(Node("a", undo=True), Node("b", "a", policy=once)))
    table.ok("a")
    table.fail("b")
    assert table.state.status == "FAILED"
    data = rerun(table, "b")
    assert ([slot.id for slot in data["settled"]], data["next"]) == (["a"], ["b"])


def test_what_an_execution_that_has_not_ended_has_done_is_its_own() -> None:
    table = Table(order())
    table.ok("look", "reserve")
    assert refused(table.state, "charge").code == "not_ended"
    assert "x1 is RUNNING" in refused(table.state, "charge").message
    assert slots(table.state, "look") == []
    assert slots(table.state, "") == []
    assert refused(shipping_failed().state, "ship").code == "not_ended"
    table.ask(requests.terminated(table.state, {}, "", table.now_ms))
    assert slots(table.state, "charge") == ["look", "reserve"]


def test_the_hint_of_a_refused_retry_works() -> None:
    once = StepPolicy(retry=Retry(max_attempts=1))
    gone = Table(Toy(Node("a"), Node("b", "a", policy=once)))
    gone.ok("a")
    gone.ask(requests.terminated(gone.state, {}, "", gone.now_ms))
    nothing_to_undo = Table(Toy(Node("a"), Node("b", "a", policy=ONCE)))
    nothing_to_undo.ok("a")
    nothing_to_undo.fail("b")
    for table, command, opens in (
        (rolled_back(), "wpa rerun x1 --from reserve", "reserve"),
        (nothing_to_undo, "wpa rerun x1 --from b", "b"),
        (gone, "wpa rerun x1", "a"),
    ):
        with pytest.raises(TaskRejected) as refusal:
            requests.retried(table.state, {}, table.now_ms, "task-9")
        assert f"`{command}`" in refusal.value.message
        assert rerun(table, command.partition(" --from ")[2])["next"] == [opens]
