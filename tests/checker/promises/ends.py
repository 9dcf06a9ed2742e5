"""I2: every execution is terminal, or rightly waiting, soon after the faults stop."""

from __future__ import annotations

from collections.abc import Iterator

from tests.checker.case import Case, Violation, execution_of, told
from tests.checker.facts import Body, Bounds, Call, Facts, Message
from tests.checker.fold import TERMINAL, Fold

__all__ = ["check", "check_all"]


def check(case: Case) -> Iterator[Violation]:
    """One execution, after all of its events."""
    fold, last = case.end(), case.journal[-1]
    yield from _told(case, fold)
    if fold.status in TERMINAL or case.facts.taken_ms < case.settled_ms or not fold.plain:
        return
    if fold["lease"]:
        yield case.broken("I2", f"it is {fold.status} still, and has not come to rest", last)
    elif fold["blocked"] is not None:
        yield case.broken("I2", "it is blocked", last)
    elif fold.status != "PAUSED":
        for what in _wrongly(case, fold):
            yield case.broken("I2", f"it waits wrongly: {what}", last)


def _wrongly(case: Case, fold: Fold) -> Iterator[str]:
    """Why an execution at rest should not be."""
    if not fold.open and not fold["start_at"]:
        yield "nothing is open"
    names = {signal["name"] for signal in fold.signals if not signal["slot"] and not fold["failing"]}
    for slot_id in fold.open:
        slot = fold.slots[slot_id]
        kind = slot["kind"]
        if kind == "step" and not slot["retry_at"]:
            yield f"nobody runs {slot_id}"
        elif kind == "signal" and slot["name"] in names:
            yield f"signal {slot['name']} is there for {slot_id}"
        elif kind == "child":
            yield from _child(case, slot)
        elif kind == "remote" and not slot["retry_at"] and not _sent(case, slot_id):
            yield f"{slot_id} is in no queue"
    if fold.due_ms() and not _alarm(case, fold):
        yield "no alarm is set"


def _child(case: Case, slot: Body) -> Iterator[str]:
    journal = case.index.journals.get((case.tenant, slot["name"]))
    if journal is None:
        if (case.tenant, slot["name"]) not in case.index.queued:
            yield f"child {slot['name']} was never started"
        return
    fold = Fold()
    for event in journal:
        fold.apply(event)
    if fold.status in TERMINAL:
        yield f"child {slot['name']} has ended, {fold.status}"


def _sent(case: Case, slot_id: str) -> bool:
    return any(_names(task, case.tenant, case.execution, slot_id) for task in case.facts.tasks)


def _names(task: Message, tenant: str, execution: str, slot_id: str) -> bool:
    body = task.body if isinstance(task.body, dict) else {}
    if not task.subject.startswith(f"workflow.steps.{tenant}."):
        return False
    return (body.get("execution_id"), body.get("slot")) == (execution, slot_id)


def _alarm(case: Case, fold: Fold) -> bool:
    """Whether the rest that the execution is in has its alarm; former releases' had one name at each rest."""
    name = f"workflow.timers.{case.tenant}.{case.execution}.wake"
    return not case.index.alarms.isdisjoint({name, f"{name}-{fold['rest_epoch']}"})


def _is_known(id: str, known: set[str]) -> bool:
    """Whether a signal is recorded; under an id that could be the engine's own, as docs/protocol.md says."""
    return id in known or f"signal:{id}" in known


def _told(case: Case, fold: Fold) -> Iterator[Violation]:
    """What an execution was told, and that was acknowledged, is in its journal."""
    signalled = [event for event in case.journal if event.name == "workflow_signalled"]
    known = {event.data["signal"].get("id") for event in signalled}
    ended_ms = case.journal[-1].stored_ms if fold.status in TERMINAL else None
    if (case.tenant, case.execution) in case.index.queued:
        return
    for call in case.calls:
        wanted = call.kind == "signal" and call.outcome == "ok" and "id" in call.body
        too_late = ended_ms is not None and ended_ms <= call.answered_ms + case.bounds.settle_ms
        if wanted and not too_late and not _is_known(call.body["id"], known) and not _refused(case, call):
            yield case.broken("I2", "a signal was acknowledged, and is nowhere", call)


def _refused(case: Case, call: Call) -> bool:
    """Whether a signal that was only published is a dead letter."""
    sent = [
        letter.body.get("payload", {})
        for letter in case.facts.letters
        if (letter.tenant, execution_of(letter)) == (case.tenant, case.execution)
    ]
    return call.via == "publish" and any(payload.get("id") == call.body["id"] for payload in sent)


def check_all(facts: Facts, bounds: Bounds) -> Iterator[Violation]:
    """What lies in the queues still."""
    latest = max([0, *(fault.until_ms for fault in facts.faults)])
    open_slots = _open_slots(facts)
    for task in [*facts.tasks, *facts.timers]:
        execution = execution_of(task)
        if facts.taken_ms < max(latest, task.stored_ms) + bounds.settle_ms:
            continue
        if task.subject.startswith("workflow.steps."):
            left = (task.tenant, execution, task.body.get("slot")) not in open_slots
        else:
            left = task.subject.startswith(("workflow.tasks.", "workflow.due."))
        if left:
            what = f"a message is left on {task.subject}"
            yield Violation("I2", task.tenant, execution, what, [told(task)])


def _open_slots(facts: Facts) -> set[tuple[str, str, object]]:
    if not any(task.subject.startswith("workflow.steps.") for task in facts.tasks):
        return set()
    found: set[tuple[str, str, object]] = set()
    for key, journal in facts.journals().items():
        fold = Fold()
        for event in journal:
            fold.apply(event)
        found |= {(*key, slot) for slot in fold.open}
    return found
