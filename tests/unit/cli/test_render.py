from __future__ import annotations

import io

import pytest
from rich.console import Console

from tests.unit.cli.fakes import event, status, step
from wpa.cli.render import Watcher, describe, executions_view, status_view, took


def printed(view: object, width: int = 200) -> str:
    out = io.StringIO()
    Console(file=out, width=width).print(view)
    return out.getvalue()


@pytest.mark.parametrize(
    ("milliseconds", "text"),
    [(None, ""), (0, "0 ms"), (999, "999 ms"), (1000, "1.0 s"), (119_999, "120.0 s"), (125_000, "2 min 5 s")],
)
def test_durations_are_for_people(milliseconds: int | None, text: str) -> None:
    assert took(milliseconds) == text


def test_a_rolled_back_execution_shows_why_and_what_was_undone() -> None:
    undone = {"uses": "orders.refund", "status": "completed", "attempt": 1, "error": None}
    left = undone | {"status": "failed"}
    error = {"type": "AddressRefused", "message": "not [/served] there", "retryable": False}
    text = printed(
        status_view(
            status(
                "FAILED",
                steps=[
                    step("charge", compensation=undone),
                    step("reserve", compensation=left),
                    step("ship", "failed", error=error),
                ],
                error=error,
                failed_step="ship",
                undone=["charge"],
                not_undone=["reserve"],
            )
        )
    )
    assert "failed at ship: AddressRefused: not [/served] there" in text
    assert "undone: charge" in text
    assert "NOT undone: reserve" in text
    charge, reserve = (
        next(line for line in text.splitlines() if line.startswith(name)) for name in ("charge", "reserve")
    )
    assert " undone " in charge
    assert " NOT undone " in reserve


@pytest.mark.parametrize("characters", [32, 40, 128])
def test_no_character_of_an_id_is_lost_on_a_narrow_terminal(characters: int) -> None:
    row = {
        "execution_id": "ü" * characters,
        "workflow_id": "a-workflow-with-a-long-name",
        "status": "COMPENSATING",
        "last_event": "workflow_step_compensated",
        "timestamp": "2026-01-02T03:04:05.678Z",
        "events": 12,
    }
    text = printed(executions_view([row]), width=80)
    assert text.count("ü") == characters
    assert (row["execution_id"] in text) is (characters <= 40)
    assert max(map(len, text.splitlines())) <= 80


@pytest.mark.parametrize(
    ("one", "text"),
    [
        (event("workflow_decision_point", step="s", decision={"kind": "switch", "taken": ["x"]}), "s -> x"),
        (
            event("workflow_decision_point", step="s", decision={"kind": "if", "result": False}),
            "s -> skipped",
        ),
        (event("step_progress", None, step="t", percentage=12.5, message="page\x1b[1A"), "t  12 %  page␛[1A"),
        (event("workflow_recovered", previous_worker="w0", reason="gone"), "from w0: gone"),
        (event("workflow_compensating", failed_step="s", error={"type": "T", "message": "m"}), "s T: m"),
    ],
)
def test_events_on_one_line(one: dict[str, object], text: str) -> None:
    assert describe(one) == text


def watched(*events: dict[str, object]) -> str:
    out = io.StringIO()
    console = Console(file=out, width=120, force_terminal=True, color_system=None, _environ={})
    with Watcher(console) as watcher:
        for one in events:
            watcher.show(one)
    return out.getvalue().rpartition("\r")[2] or out.getvalue()


def test_a_message_with_markup_in_it_does_not_break_the_bars() -> None:
    text = watched(event("step_progress", None, step="t", percentage=50, message="[/page] 1"))
    assert "[/page] 1" in text
    assert "50 %" in text


def test_a_late_live_event_does_not_empty_a_full_bar() -> None:
    done = event("workflow_step_completed", 2, step="t", attempt=1, duration_ms=1, output=None, next=[])
    late = event("step_started", None, step="t", slot="t", attempt=1)
    text = watched(done, late)
    assert "100 %" in text
    assert "done" in text


def test_without_a_terminal_there_is_a_line_for_each_event() -> None:
    out = io.StringIO()
    with Watcher(Console(file=out, width=120), many=True) as watcher:
        watcher.show(event("workflow_started", next=["a", "b"]))
        watcher.show(event("step_started", None, step="a", slot="a", attempt=1))
    assert out.getvalue().splitlines() == [
        "03:04:05.678Z  e1  started  next: a, b",
        "03:04:05.678Z  e1  step_started  a #1",
    ]
