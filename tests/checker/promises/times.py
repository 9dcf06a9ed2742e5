"""I7: timers never early, late within bounds."""

from __future__ import annotations

from collections.abc import Iterator

from tests.checker.case import Case, Violation, slot_key
from tests.checker.facts import Body, Recorded
from tests.checker.fold import TERMINAL, Fold, step_of
from tests.checker.forms import Slot
from tests.checker.plans import duration_ms, moment_ms

__all__ = ["check"]


def check(case: Case) -> Iterator[Violation]:
    """Every moment that an execution waits for: timers, time-outs, retries, its start and its deadline."""
    free_ms = 0
    retries: dict[tuple[str, int], int] = {}
    for fold, event in case.walk():
        if fold.plain:
            if fold.status == "PAUSED" and event.name in ("workflow_resumed", "workflow_cancel_requested"):
                free_ms = event.stored_ms
            yield from _event(case, fold, event, free_ms, retries)
    for effect in case.effects:
        due_ms = retries.get((effect.key, effect.attempt), 0)
        if effect.happened and effect.at_ms < due_ms - case.bounds.skew_ms:
            yield case.broken("I7", f"attempt {effect.attempt} of {effect.key} is early by "
                              f"{due_ms - effect.at_ms} ms", effect)  # fmt: skip
    yield from _overdue(case, free_ms)


def _event(
    case: Case, fold: Fold, event: Recorded, free_ms: int, retries: dict[tuple[str, int], int]
) -> Iterator[Violation]:
    data, name = event.data, event.name.removeprefix("workflow_")
    slot = fold.slots.get(data.get("slot", ""))
    if slot is not None and slot["status"] == "open" and name.startswith("step_"):
        if slot["until"] and (slot["kind"] == "timer" or data.get("timed_out")):
            yield from _due(case, event, slot, free_ms)
        due_ms = retries.get((slot_key(fold.key, slot["id"]), data.get("attempt", 1)), 0)
        began_ms = moment_ms(data["started_at"]) if data.get("started_at") else due_ms
        # A wait that is over has begun when it was opened, and no attempt was made.
        if began_ms < due_ms - case.bounds.skew_ms and not data.get("timed_out"):
            yield case.broken("I7", f"attempt {data['attempt']} at {slot['id']} began before its time", event)
        if name == "step_failed" and not data["final"]:
            retries[slot_key(fold.key, slot["id"]), data["attempt"] + 1] = moment_ms(data["retry_at"])
    for slot_id in data.get("retry", ()):
        yield from _early(case, event, f"another attempt at {slot_id}", fold.slots[slot_id]["retry_at"])
    if fold.opening(event):
        yield from _early(case, event, "its beginning", fold["start_at"])
    over = data.get("error", {}).get("type") == "DeadlineExceeded" and not data.get("failed_step")
    if name in ("failed", "compensating") and over and fold.status != "COMPENSATING":
        yield from _early(case, event, "its deadline", fold["deadline_at"])
    if name == "escalated" and slot is not None:
        yield from _escalated(case, fold, event, slot)
    if name == "resumed" and data.get("reason") == "timer":
        yield from _early(case, event, "its alarm", fold["wake_at"])


def _early(case: Case, event: Recorded, what: str, moment: str) -> Iterator[Violation]:
    early_ms = moment_ms(moment) - event.stored_ms if moment else 0
    if early_ms > case.bounds.skew_ms:
        yield case.broken("I7", f"{what} is early by {early_ms} ms", event)


def _due(case: Case, event: Recorded, slot: Slot, free_ms: int) -> Iterator[Violation]:
    """A wait that is over because its time is."""
    yield from _early(case, event, f"the end of {slot['id']}", slot["until"])
    due_ms = max(moment_ms(slot["until"]), moment_ms(slot["opened_at"]), free_ms)
    late_ms = event.stored_ms - case.late_ms(due_ms)
    if late_ms > 0:
        yield case.broken("I7", f"the end of {slot['id']} is {event.stored_ms - due_ms} ms late", event)


def _escalated(case: Case, fold: Fold, event: Recorded, slot: Slot) -> Iterator[Violation]:
    """Where the plan says when, as a constant."""
    document = case.document(fold)
    steps = document["steps"] if document else ()
    found: Body = next((item for item in steps if item["id"] == step_of(slot["id"])), {})
    escalate = found.get("with", {}).get("escalate")
    if isinstance(escalate, list) and "${" not in str(escalate[slot["escalations"]].get("after")):
        due_ms = moment_ms(slot["opened_at"]) + duration_ms(escalate[slot["escalations"]]["after"])
        if event.stored_ms < due_ms - case.bounds.skew_ms:
            yield case.broken("I7", f"the escalation of {slot['id']} is early", event)


def _overdue(case: Case, free_ms: int) -> Iterator[Violation]:
    """What should have happened by the time of the dump."""
    fold = case.end()
    if not fold.plain or fold.status in TERMINAL or fold.held:
        return
    for due_ms in fold.due_ms():
        if case.facts.taken_ms > case.late_ms(max(due_ms, free_ms)):
            late_ms = case.facts.taken_ms - due_ms
            yield case.broken("I7", f"something is due since {late_ms} ms", case.journal[-1])
