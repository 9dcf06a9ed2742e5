"""I4: at most one recorded result per step and attempt; no successor starts before it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from tests.checker.case import Case, Violation, of_step, slot_key
from tests.checker.facts import Effect, Recorded
from tests.checker.fold import Fold, step_of
from tests.checker.plans import Plan, moment_ms

__all__ = ["check"]

RESULTS: Final = ("workflow_step_completed", "workflow_step_failed", "workflow_step_compensated")


def check(case: Case) -> Iterator[Violation]:
    """Every result, every opening, and every first effect."""
    results: dict[tuple[int, str, int], Recorded] = {}
    last = _last(case)
    effects: dict[str, Effect] = {}
    for effect in sorted(case.effects, key=lambda effect: effect.at_ms, reverse=True):
        if effect.happened:
            effects[effect.key] = effect
    for fold, event in case.walk():
        if fold.plain and event.name in RESULTS:
            yield from _result(case, fold, event, results)
        yield from _openings(case, fold, event, effects, last)


def _result(
    case: Case, fold: Fold, event: Recorded, results: dict[tuple[int, str, int], Recorded]
) -> Iterator[Violation]:
    data, slot_id = event.data, event.data["slot"]
    attempt = data.get("attempt", 1)
    key = (fold["run"], slot_id, attempt)
    if (other := results.setdefault(key, event)) is not event:
        yield case.broken("I4", f"attempt {attempt} at {slot_id} has two results", other, event)
    slot = fold.slots.get(slot_id)
    if slot is None or slot["status"] != "open":
        return  # I3 says what is wrong, if anything
    if attempt != slot["attempt"]:
        what = f"the result of attempt {attempt} at {slot_id}, and attempt {slot['attempt']} is under way"
        yield case.broken("I4", what, event)
    began = data.get("started_at")
    if began and moment_ms(began) < moment_ms(slot["opened_at"]) - case.bounds.skew_ms:
        yield case.broken("I4", f"{slot_id} began at {began}, before it was opened", event)


def _last(case: Case) -> dict[str, int]:
    """Where the last event is that settles a slot of each step, what undoes it apart."""
    last: dict[str, int] = {}
    for event in case.journal:
        slot_id = event.data.get("slot", "")
        if not slot_id.endswith(":undo"):
            last[step_of(slot_id)] = event.sequence
    return last


def _openings(
    case: Case, fold: Fold, event: Recorded, effects: dict[str, Effect], last: dict[str, int]
) -> Iterator[Violation]:
    """Nothing is opened before what it needs has a result, and nothing runs before it is opened."""
    opening = fold.opening(event)
    if not opening:
        return
    run = event.data.get("run", fold["run"]) if fold.plain else 1
    key = case.execution if run == 1 else f"{case.execution}.{run}"
    for slot_id in opening:
        effect = effects.get(slot_key(key, slot_id))
        if effect is not None and effect.at_ms < event.stored_ms - case.bounds.skew_ms:
            yield case.broken("I4", f"{slot_id} ran before its opening was stored", effect, event)
    version = fold["version"] if fold.plain else event.data.get("version", "")
    plan = case.index.plan(case.tenant, event.body.get("workflow_id", ""), version)
    if plan is None:
        return
    for step in dict.fromkeys(step_of(slot_id) for slot_id in opening if not slot_id.endswith(":undo")):
        if any(slot["id"] not in opening for slot in of_step(fold, step)):
            continue  # a loop goes on
        yield from _needs(case, fold, event, plan, step, last)


def _needs(
    case: Case, fold: Fold, event: Recorded, plan: Plan, step: str, last: dict[str, int]
) -> Iterator[Violation]:
    """What a step needs has ended, as far as its join asks for it."""
    settles = event.data.get("slot")
    dropped = event.data.get("dropped", ())
    lacking = []
    for parent in plan.parents[step]:
        slots = [slot for slot in of_step(fold, parent) if slot["id"] not in (settles, *dropped)]
        opens = any(step_of(slot) == parent for slot in fold.opening(event))
        settled_later = last.get(parent, 0) > event.sequence
        if opens or any(slot["status"] == "open" for slot in slots) or settled_later:
            lacking.append(parent)
    quorum = plan.quorum(step)
    enough = len(plan.needs[step]) - len(set(lacking) & set(plan.needs[step])) >= quorum
    if quorum and enough and not set(lacking) & set(plan.gates[step]):
        return
    if lacking:
        yield case.broken("I4", f"{step} is opened before {', '.join(lacking)} had ended", event)
