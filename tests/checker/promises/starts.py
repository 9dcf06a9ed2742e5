"""I1: every acknowledged start is exactly one execution."""

from __future__ import annotations

from collections.abc import Iterator

from tests.checker.case import Violation, told
from tests.checker.facts import Body, Bounds, Call, Facts, Recorded
from tests.checker.names import next_child_name

__all__ = ["check"]

Key = tuple[str, str]

RETRIES_MAX = 100
SELF_STARTED = ("trigger", "schedule")
"""``metadata.source`` of what the engine starts by itself."""


def check(facts: Facts, bounds: Bounds) -> Iterator[Violation]:
    """Hold the calls against the journals."""
    journals = facts.journals()
    begun: dict[Key, list[Recorded]] = {}
    for event in facts.events:
        if event.name == "workflow_started":
            begun.setdefault(event.key, []).append(event)
    asked: dict[Key, list[Call]] = {}
    for call in facts.calls:
        if call.kind in ("start", "rerun"):
            asked.setdefault((call.tenant, call.execution), []).append(call)
    for key, events in begun.items():
        if len(events) > 1:
            yield _broken(key, f"it was started {len(events)} times", *events)
        yield from _wanted(facts, journals, key, events[0], asked.get(key, []))
    for key, calls in asked.items():
        yield from _answered(facts, key, calls, begun.get(key, []))


def _broken(key: Key, what: str, *evidence: object) -> Violation:
    return Violation("I1", *key, what, [told(fact) for fact in evidence])


def _wanted(
    facts: Facts, journals: dict[Key, list[Recorded]], key: Key, event: Recorded, calls: list[Call]
) -> Iterator[Violation]:
    """An execution that is there was asked for."""
    data = event.data
    parent = data.get("parent")
    if parent:
        above = journals.get((key[0], parent["execution_id"]), [])
        if not _opened(above, key[1], parent["execution_id"], parent["slot"]):
            yield _broken(key, "its parent never asked for it", event)
        return
    of_itself = data.get("metadata", {}).get("source") in SELF_STARTED
    child = "parent" in data.get("context", {})
    if facts.closed and not of_itself and not child and not any(c.outcome != "failed" for c in calls):
        yield _broken(key, "nobody has started it", event, *calls)


def _opened(journal: list[Recorded], child: str, parent: str, slot: str) -> bool:
    """Whether the parent has opened a slot for this very child, or tried one again."""
    run = 1
    for event in journal:
        run += event.name == "workflow_continued"
        told = event.data.get("waits", {}).get(slot, {})
        if told.get("kind") != "child":
            continue
        key, name = parent if run == 1 else f"{parent}.{run}", told["name"]
        for attempt in range(1, RETRIES_MAX):
            if name == child:
                return True
            name = next_child_name(name, key, slot, attempt)
    return False


def _answered(facts: Facts, key: Key, calls: list[Call], events: list[Recorded]) -> Iterator[Violation]:
    """A start that was acknowledged has its execution, with what was asked."""
    acknowledged = [call for call in calls if call.outcome == "ok"]
    for call in acknowledged:
        if not events:
            if not _refused(facts, key, calls) and not _queued(facts, key):
                yield _broken(key, "a start was acknowledged, and there is no execution", call)
        elif call.kind == "start" and not _fits(facts, call, events[0]) and not _beside(facts, key, call):
            yield _broken(key, "the execution is not the one that was acknowledged", call, events[0])
    if events and not _runs_as_told(facts, calls, events[0]):
        yield _broken(key, "it runs on a version that nobody was told", *acknowledged, events[0])


def _runs_as_told(facts: Facts, calls: list[Call], event: Recorded) -> bool:
    """Whether somebody was told the version of a plan that it has begun on; or it may be another's start."""
    plans = {(plan.tenant, plan.workflow, plan.version) for plan in facts.definitions}
    made = [call for call in calls if call.outcome != "failed"]
    sure = all((call.tenant, call.workflow, call.version) in plans for call in made)
    return not made or not sure or event.data.get("version") in {call.version for call in made}


def _fits(facts: Facts, call: Call, event: Recorded) -> bool:
    if "idempotency_key" in call.body:
        return True  # of several starts with the same key, any may be the one
    same = event.body.get("workflow_id") == call.workflow
    return same and facts.resolve(event.data.get("input")) == call.input


def _codes(facts: Facts, key: Key) -> Iterator[str]:
    for letter in facts.letters:
        body: Body = letter.body if isinstance(letter.body, dict) else {}
        if letter.tenant == key[0] and body.get("execution_id") == key[1]:
            yield letter.headers.get("Wpa-Code", "")


def _refused(facts: Facts, key: Key, calls: list[Call]) -> bool:
    """Whether the start is a dead letter, as one may be that was only published. A conflict takes two."""
    published = all(call.via == "publish" for call in calls)
    return published and any(code != "conflict" for code in _codes(facts, key))


def _beside(facts: Facts, key: Key, call: Call) -> bool:
    """Whether a start under a name that another one has taken, before or after it, is a dead letter."""
    codes = list(_codes(facts, key))
    return "conflict" in codes or (call.via == "publish" and bool(codes))


def _queued(facts: Facts, key: Key) -> bool:
    """Whether the start waits for somebody to take it: then it is I2 that judges."""
    bodies = [(task.tenant, task.body) for task in facts.tasks if isinstance(task.body, dict)]
    return any((tenant, body.get("execution_id")) == key for tenant, body in bodies)
