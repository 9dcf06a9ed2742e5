"""I5: compensations are exactly the completed compensable steps, in reverse, recorded once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from tests.checker.case import Case, Violation, slot_key
from tests.checker.facts import Recorded
from tests.checker.fold import Fold, step_of

__all__ = ["check"]

UNDONE_TOLD: Final = 100
"""So many names of undone steps are told with each one more."""


def check(case: Case) -> Iterator[Violation]:
    """From what was completed to what the end says of it."""
    undone: list[Recorded] = []
    for fold, event in case.walk():
        if not fold.plain:
            continue
        name = event.name.removeprefix("workflow_")
        if name == "compensating":
            yield from _begin(case, fold, event)
        elif name == "step_compensated":
            undone.append(event)
            yield from _undone(case, fold, event, undone)
        elif name in ("completed", "failed", "rolled_back", "cancelled"):
            yield from _end(case, fold, event, [one.data["slot"] for one in undone])
    yield from _effects(case)


def compensable(case: Case, fold: Fold) -> list[str] | None:
    """What is to be undone, in that order; None for a flow, which alone knows."""
    document = case.document(fold)
    if document is None:
        return None
    steps = {item["id"] for item in document["steps"] if item.get("compensate")}
    return [f"{slot}:undo" for slot in reversed(_work(fold)) if step_of(slot) in steps]


def _work(fold: Fold) -> list[str]:
    """Completed work, and waits, in order; the pauses between the rounds of a loop apart."""
    done = [slot for slot in fold.order if fold.slots[slot]["status"] == "completed"]
    return [slot for slot in done if ":" not in slot or slot.partition(":")[2].isdigit()]


def _begin(case: Case, fold: Fold, event: Recorded) -> Iterator[Violation]:
    undo, wanted = event.data["undo"], compensable(case, fold)
    if wanted is None:
        possible = [f"{slot}:undo" for slot in reversed(_work(fold))]
        if undo != [slot for slot in possible if slot in undo]:
            yield case.broken("I5", f"{undo} is not the reverse of what was completed: {possible}", event)
    elif undo != wanted:
        yield case.broken("I5", f"to be undone is {wanted}, and it is {undo}", event)


def _undone(case: Case, fold: Fold, event: Recorded, undone: list[Recorded]) -> Iterator[Violation]:
    done = [one.data["slot"] for one in undone]
    if done != fold["undo"][: len(done)]:
        yield case.broken("I5", f"{done} is undone, and the order is {fold['undo']}", *undone)
    names = [step_of(slot) for slot in done]
    if event.data["undone"] not in (names[-UNDONE_TOLD:], names):  # there were times when all were told
        yield case.broken("I5", f"{done} is undone, and it says {event.data['undone']}", event)


def _end(case: Case, fold: Fold, event: Recorded, done: list[str]) -> Iterator[Violation]:
    """The end says what is undone and what is not, and leaves out nothing that was to be undone."""
    data, name = event.data, event.name.removeprefix("workflow_")
    if name == "completed":
        return
    left = [slot for slot in fold["undo"] if slot not in done]
    if data.get("undone", []) != [step_of(slot) for slot in done]:
        yield case.broken("I5", f"{done} is undone, and the end says {data.get('undone')}", event)
    if name == "rolled_back" and left:
        yield case.broken("I5", f"it says rolled back, and {left} is not undone", event)
    if fold.status == "COMPENSATING":
        if name == "failed" and data.get("not_undone", []) != [step_of(slot) for slot in left]:
            yield case.broken("I5", f"{left} is not undone, and the end says {data.get('not_undone')}", event)
        return
    wanted = compensable(case, fold)
    if wanted is None or data.get("terminated") or data.get("error", {}).get("type") == "OverLimit":
        return
    if data.get("not_undone", []) != [step_of(slot) for slot in wanted]:
        yield case.broken("I5", f"{wanted} stands, and the end says {data.get('not_undone')}", event)
    # Who cancels it says whether anything is undone, also of one that was about to undo it because it failed.
    asked = fold["on_error"] == "compensate" if fold["cancel"] is None else fold["cancel"]["compensate"]
    if wanted and asked:
        yield case.broken("I5", f"{wanted} was to be undone first", event)


def _effects(case: Case) -> Iterator[Violation]:
    """What was done to the world to undo it, in the order in which it was to be."""
    fold = case.end()
    if not fold.plain:
        return
    keys = {slot_key(fold.key, slot): slot for slot in fold["undo"]}
    effects = [effect for effect in case.effects if effect.happened and effect.key.endswith(":undo")]
    order = list(dict.fromkeys(keys.get(effect.key, "") for effect in effects))
    for effect in effects:
        if effect.key not in keys:
            yield case.broken("I5", f"{effect.key} was undone, and nobody asked for it", effect)
    known = [slot for slot in order if slot]
    if known != [slot for slot in fold["undo"] if slot in known]:
        yield case.broken("I5", f"the steps were undone as {known}; the order is {fold['undo']}", *effects)
