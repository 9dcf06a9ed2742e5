"""I3: each journal is one chain, every event a legal successor."""

from __future__ import annotations

from collections.abc import Iterator

from tests.checker.case import Case, Violation
from tests.checker.facts import Recorded
from tests.checker.fold import ASKED, Fold

__all__ = ["check"]

SAME = ("workflow_id", "task_id", "global_task_id", "traceparent", "service")
"""What is the same in all events of an execution."""


def check(case: Case) -> Iterator[Violation]:
    """The envelopes, the epochs, the transitions, and which slots are open after each event."""
    first = case.journal[0]
    if first.seq != 1 or first.name != "workflow_started":
        yield case.broken("I3", "the journal has no beginning", first)
    ids: dict[str, Recorded] = {}
    leases: dict[str, Recorded] = {}
    fold = Fold()
    for event in case.journal:
        body = event.body
        if (same := ids.setdefault(str(body.get("id")), event)) is not event:
            yield case.broken("I3", "an event was stored twice", same, event)
        lease = event.data.get("lease") if event.data.get("reason") != "timer" else None
        if lease and (same := leases.setdefault(lease, event)) is not event:
            yield case.broken("I3", "what one message asked is recorded twice", same, event)
        if (body.get("tenant_id"), body.get("execution_id")) != event.key:
            yield case.broken("I3", f"an event of another execution is on {event.subject}", event)
        if any(body.get(name) != first.body.get(name) for name in SAME):
            yield case.broken("I3", "what names the execution has changed", first, event)
        if fold.plain and (what := _drives(fold, event)):
            yield case.broken("I3", what, event)
        fold.apply(event)
        if "next" in event.data and sorted(fold.open) != sorted(event.data["next"]):
            yield case.broken("I3", f"open are {sorted(fold.open)}, and it says otherwise", event)
    for event, what in fold.complaints:
        yield case.broken("I3", what, event)


def _drives(fold: Fold, event: Recorded) -> str:
    """What is wrong with who wrote an event, if anything: there is one driver at a time."""
    epoch, worker = event.body.get("epoch"), event.body.get("worker")
    name = event.name.removeprefix("workflow_")
    takes_over = name == "recovered" or bool(event.data.get("lease")) or "blocked" in event.data
    if takes_over:
        return "" if epoch == fold["epoch"] + 1 else f"epoch {epoch} takes over from {fold['epoch']}"
    if epoch != fold["epoch"]:
        return f"epoch {epoch} writes in epoch {fold['epoch']}"
    # Who resumes a paused one may give the same reason, and says who it is.
    if name == "resumed" and event.data.get("reason") == "go on" and "by" not in event.data:
        return "" if worker == fold["worker"] else f"{worker} goes on in the place of {fold['worker']}"
    if name not in ASKED and worker != fold["worker"]:
        return f"{worker} writes, and {fold['worker']} is the driver"
    if name not in ASKED and not fold["lease"]:
        return "it is written by nobody who drives"
    return ""
