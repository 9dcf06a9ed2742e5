"""I8: nothing starts between a durable pause and its resume."""

from __future__ import annotations

from collections.abc import Iterator

from tests.checker.case import Case, Violation, slot_key
from tests.checker.facts import Recorded

__all__ = ["check"]


def check(case: Case) -> Iterator[Violation]:
    """No slot is opened in a pause, and no attempt begins once the pause has reached the driver.

    What had been sent to a queue before may begin.
    """
    pause: Recorded | None = None
    sent: set[str] = set()
    for fold, event in case.walk():
        if not fold.plain:
            continue
        if pause is not None and fold.status != "PAUSED":
            pause = None
        ends = event.name in ("workflow_resumed", "workflow_cancel_requested", "workflow_cancelled")
        if pause is None and event.name == "workflow_paused":
            pause = event
            sent = {slot_key(fold.key, slot) for slot in fold.open if fold.slots[slot]["kind"] == "remote"}
        elif pause is not None and ends:
            yield from _began(case, pause, event.stored_ms, sent)
            pause = None
        elif pause is not None and (opening := fold.opening(event)):
            yield case.broken("I8", f"{opening} is opened in a pause", pause, event)
    if pause is not None:
        yield from _began(case, pause, case.facts.taken_ms, sent)


def _began(case: Case, pause: Recorded, until_ms: int, sent: set[str]) -> Iterator[Violation]:
    since_ms = case.facts.quiet_after(pause.stored_ms, case.bounds.pause_ms) + case.bounds.pause_ms
    for effect in case.effects:
        late = since_ms < effect.at_ms < until_ms - case.bounds.skew_ms
        if effect.happened and late and effect.key not in sent:
            yield case.broken("I8", f"{effect.key} began in a pause", pause, effect)
