"""What there was to judge: a promise that nothing in a run could have broken was not kept by it, either."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from tests.checker.facts import Facts, Recorded
from tests.checker.flows import flows_of
from tests.checker.promises.tenants import owned

__all__ = ["judged"]

SETTLED: Final = {"step_completed", "step_failed", "step_compensated", "decision_point"}
NOT_COMPLETED: Final = {"compensating", "step_compensated", "rolled_back", "failed", "cancelled"}
MOMENTS: Final = ("start_at", "deadline_at", "retry_at", "until")


def judged(facts: Facts, *, flows: bool = False) -> set[str]:
    """The promises about which the facts say anything.

    Args:
        facts: what was judged.
        flows: whether the journals of flows were replayed, too.
    """
    return set(_judged(facts, flows))


def _judged(facts: Facts, flows: bool) -> Iterator[str]:
    names = {event.name.removeprefix("workflow_") for event in facts.events}
    happened = [effect for effect in facts.effects if effect.happened]
    ran = {event.data.get("uses") for event in facts.events if isinstance(event.data.get("uses"), str)}
    if "started" in names or any(call.kind in ("start", "rerun") for call in facts.calls):
        yield "I1"
    if facts.events or facts.tasks or facts.timers:
        yield "I2"
    if facts.events:
        yield from ("I3", "I6")
    if names & SETTLED:
        yield "I4"
    if names & NOT_COMPLETED or any(effect.key.endswith(":undo") for effect in happened):
        yield "I5"
    if any(_is_timed(event) for event in facts.events):
        yield "I7"
    if "paused" in names:
        yield "I8"
    if any(owner != tenant for tenant, _, _ in owned(facts) for owner in facts.canaries):
        yield "I9"
    if len(facts.journals()) > (0 if flows else len(flows_of(facts))):
        yield "I10"
    if happened or ran & set(facts.ledgered):
        yield "I11"
    if any(event.name == "workflow_started" and event.data.get("parent") for event in facts.events):
        yield "I12"


def _is_timed(event: Recorded) -> bool:
    """Whether an event sets a moment: a beginning, a deadline, another attempt, an alarm, a wait's end."""
    waits = event.data.get("waits")
    told: list[Any] = [event.data, *(waits.values() if isinstance(waits, dict) else ())]
    return any(isinstance(one, dict) and one.get(name) for one in told for name in MOMENTS)
