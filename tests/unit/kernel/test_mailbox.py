"""What lies with an execution that takes nothing, and how much of it may."""

from __future__ import annotations

import pytest

from tests.unit.kernel.programs import Node, Toy
from tests.unit.kernel.table import Table
from wpa.errors import OverLimit
from wpa.kernel import requests
from wpa.kernel.mail import Mail
from wpa.kernel.program import Approval, Child, StepPolicy, Wait, Want
from wpa.model.events import Failure
from wpa.model.state import Signal

MOST = 3


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> Table:
    """An execution that waits for everything."""
    monkeypatch.setattr(requests, "SIGNALS_MAX", MOST)
    return Table(
        Toy(
            Node("k", kind="child", wait=Wait(child=Child(workflow="kid"))),
            Node("k2", kind="child", wait=Wait(child=Child(workflow="kid"))),
            Node("far", policy=StepPolicy(queue="gpu")),
            Node("ok", kind="approval", wait=Wait(approval=Approval(count=MOST + 1))),
        )
    )


def results(table: Table) -> None:
    table.tell("k", {"status": "COMPLETED", "output": 1}, id="child:k:1:1")
    table.tell("k2", {"status": "COMPLETED", "output": 2}, id="child:k2:1:1")
    table.tell("far", {"attempt": 1, "output": 3}, id="result:far:1:1")


def test_a_full_mailbox_takes_the_results_that_come_once(table: Table) -> None:
    for _ in range(MOST):
        assert table.signal("other")
    results(table)
    slots = table.state.slots
    assert [slots[slot_id].output for slot_id in ("k", "k2", "far")] == [1, 2, 3]
    with pytest.raises(OverLimit, match=f"x1 has {MOST} signals that it has not taken"):
        table.signal("other")


def test_results_that_come_in_a_pause_leave_room_for_signals_and_answers(table: Table) -> None:
    assert table.ask(requests.paused(table.state, {}, "", table.now_ms))
    results(table)
    assert table.signal("other")
    for user in ("ana", "bob"):
        assert table.tell("ok", {"approved": True}, {"user_id": user}, id=f"answer:ok:{user}")
    with pytest.raises(OverLimit):
        table.signal("other")
    with pytest.raises(OverLimit):
        table.tell("ok", {"approved": True}, {"user_id": "eva"}, id="answer:ok:eva")
    assert table.ask(requests.resumed(table.state, {}, "", table.now_ms, "task-9"))
    assert table.state.open == ["ok"]


def test_nobody_may_answer_what_can_not_be_asked(table: Table) -> None:
    fault = Failure(type="InvalidInput", message="input.team_roles: no such field", retryable=False)
    signal = Signal(id="answer:ok:ana", slot="ok", payload={"approved": True}, by={"user_id": "ana"})
    table.state.signals += [signal] * (MOST + 1)
    mail, wants = Mail(), {"ok": Want(slot="ok", step="ok", kind="approval", fault=fault)}
    mail.look_again(table.state, wants)
    assert mail.take(table.state, wants, table.now_ms) is None
