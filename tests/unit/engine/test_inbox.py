from __future__ import annotations

from typing import Any

from wpa.engine.door import Request
from wpa.engine.inbox import Inbox
from wpa.model.tasks import Task


def request(tenant: str, name: str, priority: int = 5) -> Request:
    task = Task(type="workflow_start", priority=priority)
    nothing: Any = None
    return Request(
        lease=nothing, task=task, tenant=tenant, workflow="w", execution=name, start_hash="", traceparent="",
        metadata={}, live=nothing,
    )  # fmt: skip


def drain(inbox: Inbox) -> list[str]:
    names = []
    while (taken := inbox.take()) is not None:
        names.append(taken.execution)
    return names


def test_a_lane_is_first_in_first_out() -> None:
    inbox = Inbox()
    for name in "abc":
        inbox.put(request("t", name))
    assert len(inbox) == 3
    assert drain(inbox) == ["a", "b", "c"]


def test_tenants_take_turns_whatever_their_backlog() -> None:
    inbox = Inbox()
    for number in range(1_000):
        inbox.put(request("big", f"big{number}"))
    inbox.put(request("small", "only"))
    assert "only" in [inbox.take().execution for _ in range(2)]  # type: ignore[union-attr]


def test_high_priority_goes_first_and_low_is_never_starved() -> None:
    inbox = Inbox()
    for number in range(40):
        inbox.put(request("t", f"high{number}", 9))
        inbox.put(request("t", f"low{number}", 0))
        inbox.put(request("t", f"normal{number}", 5))
    first = drain(inbox)[:26]
    counts = {lane: sum(name.startswith(lane) for name in first) for lane in ("high", "normal", "low")}
    assert counts == {"high": 16, "normal": 8, "low": 2}


def test_everything_can_be_handed_back() -> None:
    inbox = Inbox()
    for tenant in ("a", "b"):
        for priority in (0, 5, 9):
            inbox.put(request(tenant, f"{tenant}{priority}", priority))
    assert len(inbox.clear()) == 6
    assert inbox.take() is None
