"""I11: an ``at_most_once`` step's side effect happens at most once; others at least once with one
idempotency key."""

from __future__ import annotations

from collections.abc import Iterator

from tests.checker.case import Case, Violation, slot_key
from tests.checker.facts import Effect, Recorded
from tests.checker.fold import Fold, step_of

__all__ = ["check"]


def check(case: Case) -> Iterator[Violation]:
    """The ledger, held against the slots of the journal."""
    begun: dict[str, list[Effect]] = {}
    for effect in case.effects:
        if effect.happened:
            begun.setdefault(effect.key, []).append(effect)
    known: dict[str, str] = {}
    once: set[str] | None = None
    for fold, event in case.walk():
        run = event.data.get("run", fold["run"]) if fold.plain else 1
        key = case.execution if run == 1 else f"{case.execution}.{run}"
        known |= {slot_key(key, slot): slot for slot in fold.opening(event)}
        if fold.plain:  # a version that it is migrated to may ask for it of what has happened twice
            once = _at_most_once(case, fold) & (_at_most_once(case, fold) if once is None else once)
        done = event.name in ("workflow_step_completed", "workflow_step_compensated")
        if done and event.data["uses"] in case.facts.ledgered:
            yield from _happened(case, fold, event, begun)
    for key, effects in begun.items():
        yield from _one_key(case, key, effects, known)
        step = effects[0].step
        marked = step in (once or ()) or any(effect.once for effect in effects)
        if len(effects) > 1 and marked and not key.endswith(":undo"):
            yield case.broken("I11", f"{key} took effect {len(effects)} times, and may once", *effects)


def _at_most_once(case: Case, fold: Fold) -> set[str]:
    document = case.document(fold)
    return {item["id"] for item in document["steps"] if item.get("at_most_once")} if document else set()


def _happened(case: Case, fold: Fold, event: Recorded, begun: dict[str, list[Effect]]) -> Iterator[Violation]:
    """What is recorded as done has taken effect, under the key of its slot."""
    key = slot_key(fold.key, event.data["slot"])
    if key not in begun:
        yield case.broken("I11", f"{key} is recorded as done, and never took effect", event)


def _one_key(case: Case, key: str, effects: list[Effect], known: dict[str, str]) -> Iterator[Violation]:
    """Effects are those of slots that were opened, under their keys."""
    slot = known.get(key)
    if slot is None:
        yield case.broken("I11", f"{key} is the key of no slot that was opened", *effects)
    elif any(effect.step != step_of(slot) for effect in effects):
        yield case.broken("I11", f"{key} was given to another step", *effects)
