from __future__ import annotations

import io

import pytest
from rich.console import Console

from tests.unit.cli.fakes import event, status, step
from wpa.cli.render import executions_view, status_view, took
from wpa.cli.watching import Watcher, describe

DAY = "2026-01-02T00:00:00.000Z"
APPROVAL = {"slot": "review", "step": "review", "kind": "approval"}
RETRY = {"slot": "b", "step": "b", "kind": "retry", "until": DAY}


def printed(view: object, width: int = 200) -> str:
    out = io.StringIO()
    Console(file=out, width=width).print(view)
    return out.getvalue()


@pytest.mark.parametrize(
    ("milliseconds", "text"),
    [
        (None, ""),
        (0, "0 ms"),
        (999, "999 ms"),
        (1000, "1.0 s"),
        (119_999, "120.0 s"),
        (125_000, "2 min 5 s"),
        (7_200_000, "2 h 0 min"),
        (172_799_999, "47 h 59 min"),
        (180_000_000, "2 d 2 h"),
    ],
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


def test_what_was_cancelled_has_not_failed() -> None:
    error = {"type": "Cancelled", "message": "changed [/my] mind; its clean-up failed: X"}
    text = printed(status_view(status("CANCELLED", error=error)))
    assert "ended: changed [/my] mind; its clean-up failed: X" in text
    assert "failed: Cancelled" not in text


def test_whom_an_approval_asks_is_not_made_up() -> None:
    approval = {"message": "", "users": [], "roles": [], "count": 1, "answers": [], "unknown": True}
    text = printed(
        status_view(status("WAITING", waiting_for=[{**APPROVAL, "since": DAY, "approval": approval}]))
    )
    assert "of whom its code names" in text
    assert "anybody" not in text


def test_a_waiting_execution_shows_for_whom_since_when_and_until_when() -> None:
    approval = {
        "message": "ship [/it]?",
        "users": ["ada"],
        "roles": ["manager"],
        "count": 2,
        "answers": [{"by": {"user_id": "bob"}, "decision": "approved", "comment": "", "at": DAY}],
    }
    text = printed(
        status_view(
            status(
                "WAITING",
                steps=[
                    step("review", "waiting", uses="core.approval", until=DAY),
                    step("train", "waiting", kind="remote", uses="ml.train", name="gpu"),
                ],
                waiting_for=[
                    {**APPROVAL, "since": "2026-01-01T00:00:00.000Z", "until": DAY, "approval": approval},
                    {"slot": "train", "step": "train", "kind": "remote", "name": "gpu", "since": DAY},
                ],
                signals={"count": 2, "names": ["go"]},
                deadline_at=DAY,
                parent={"execution_id": "p", "slot": "sub"},
                children=[{"slot": "c", "execution_id": "x-c", "status": "waiting"}],
                forked_from="old",
                cancel={"reason": "enough", "by": {"user_id": "eve"}, "compensate": False},
                cleans_up_until=DAY,
            )
        )
    )
    for line in (
        "waiting for approval review of ada, role manager (1 of 2: bob) since 2026-01-01T00:00:00Z,",
        " until 2026-01-02T00:00:00Z: ship [/it]?",
        "waiting for a worker that serves queue gpu (train) since 2026-01-02T00:00:00Z",
        "2 signals not taken: go",
        "deadline 2026-01-02T00:00:00Z",
        "parent p (sub)",
        "child x-c (c): waiting",
        "rerun of old",
        "cancel asked by eve, without compensation: enough",
        "it cleans up, until 2026-01-02T00:00:00Z at the latest",
    ):
        assert line in text
    assert "ml.train @gpu" in text


def test_what_is_blocked_and_what_begins_later() -> None:
    failure = {"type": "NonDeterminism", "message": "- a\n+ b"}
    text = printed(status_view(status("WAITING", blocked=failure, wake_at=DAY, start_at=DAY)))
    assert "begins at 2026-01-02T00:00:00Z" in text
    assert "blocked: NonDeterminism: - a\n+ b" in text
    assert "tried again at 2026-01-02T00:00:00Z, or by `wpa resume`" in text


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
        (
            event("workflow_waiting", waiting_for=[APPROVAL, RETRY]),
            "for approval review; the next attempt at b until 2026-01-02T00:00:00Z",
        ),
        (event("workflow_waiting", waiting_for=[], until=DAY), "until 2026-01-02T00:00:00Z"),
        (event("workflow_waiting", waiting_for=[], blocked={"type": "T", "message": "m"}), "blocked: T: m"),
        (event("workflow_started", next=[], start_at=DAY), "begins at 2026-01-02T00:00:00Z"),
        (event("workflow_resumed", reason="timer"), "timer"),
        (event("workflow_resumed", reason="go on", next=["a", "b"]), "go on  next: a, b"),
        (event("workflow_paused", by={"user_id": "ada\x1b"}, reason="r"), "by ada␛: r"),
        (event("workflow_paused", by={}, reason=""), ""),
        (
            event("workflow_signalled", signal={"name": "go", "payload": [1], "by": {"source": "cli"}}),
            "go  [1]  by cli",
        ),
        (
            event("workflow_signalled", signal={"slot": "c", "payload": {"status": "FAILED"}}),
            'c  {"status": "FAILED"}',
        ),
        (
            event(
                "workflow_signalled",
                signal={
                    "slot": "r",
                    "payload": {"approved": False, "comment": "no"},
                    "by": {"user_id": "ada"},
                },
            ),
            "r rejected  by ada: no",
        ),
        (
            event("workflow_escalated", step="r", users=["bob"], roles=["boss"]),
            "r: now bob, role boss may answer, too",
        ),
        (
            event("workflow_cancel_requested", by={"user_id": "ada"}, reason="", compensate=False),
            "by ada, without compensation",
        ),
        (
            event("workflow_cancelled", by={}, reason="", terminated=True, undone=[], not_undone=["a"]),
            "terminated ; NOT undone: a",
        ),
        (
            event("workflow_cancelled", by={}, reason="", terminated=False, undone=["a"], not_undone=[]),
            "undone: a",
        ),
        (
            event(
                "workflow_cancelled",
                by={"user_id": "ada"},
                reason="no",
                terminated=False,
                undone=["a"],
                not_undone=[],
                error={"type": "Cancelled", "details": {"cleanup": "its clean-up failed: X"}},
            ),
            "by ada: no; its clean-up failed: X; undone: a",
        ),
        (
            event(
                "workflow_cancelled",
                by={},
                reason="no",
                terminated=False,
                undone=[],
                not_undone=[],
                error={"type": "Cancelled", "details": {"before": "it had failed: X"}},
            ),
            "no; it had failed: X",
        ),
        (event("workflow_continued", run=3, input={"page": 2}, next=[]), 'run 3 with {"page": 2}'),
        (event("workflow_migrated", version="2", previous_version="1", by={}), "from version 1 to 2"),
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


def test_a_step_that_runs_more_than_once_says_how_often_it_has() -> None:
    each = step("each", turns={"done": 7, "failed": 2, "total": 10})
    again = step("again", output={"x": 1}, turns={"done": 3, "failed": 0, "total": None})
    text = printed(status_view(status(steps=[each, again])))
    assert "7/10, 2 failed" in text
    assert '3  {"x": 1}' in text
