"""I12: no child lives on when nobody waits for it any more, unless it was to be abandoned."""

from __future__ import annotations

from collections.abc import Iterator

from tests.checker.case import Case, Violation
from tests.checker.facts import Recorded
from tests.checker.fold import TERMINAL, Fold

__all__ = ["check"]


def check(case: Case) -> Iterator[Violation]:
    """Whatever ends the wait for a child, but its own end: a time-out, a lost race, the parent's end."""
    fold = Fold()
    for event in case.journal:
        waited_for = _children(fold)
        fold.apply(event)
        for slot_id in sorted(waited_for.keys() - set(fold.open)):
            # As detached, by the version that it was migrated to, it may live on.
            detached = event.data.get("output") == {"execution_id": waited_for[slot_id]}
            told = event.data.get("signals") or detached
            if event.data.get("slot") != slot_id or not told:
                yield from _lives_on(case, waited_for[slot_id], slot_id, event)


def _children(fold: Fold) -> dict[str, str]:
    """The children that are not to outlive the wait for them, by slot."""
    slots = (fold.slots[slot_id] for slot_id in fold.open)
    return {slot["id"]: slot["name"] for slot in slots if slot["kind"] == "child" and not slot["abandon"]}


def _lives_on(case: Case, child: str, slot_id: str, event: Recorded) -> Iterator[Violation]:
    """By the time at which it has to know, the child has ended, or is about to."""
    journal = case.index.journals.get((case.tenant, child), [])
    parent = {"execution_id": case.execution, "slot": slot_id}
    if not journal or journal[0].data.get("parent") != parent:
        return  # it never began, or is another's
    late_ms = case.late_ms(event.stored_ms) + case.bounds.settle_ms
    fold = Fold()
    for number, one in enumerate(journal):
        fold.apply(one)
        following = journal[number + 1].stored_ms if number + 1 < len(journal) else case.facts.taken_ms
        if following < event.stored_ms:
            continue
        if one.stored_ms > late_ms or _is_ending(fold):
            break
        if following > late_ms:
            yield case.broken("I12", f"{child} lives on, and nobody waits for it any more", event, one)


def _is_ending(fold: Fold) -> bool:
    return fold.status in TERMINAL or fold.status == "COMPENSATING" or fold["cancel"] is not None
