"""What the promises are given: one execution with all that is known of it; and what they answer with."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from tests.checker.facts import Body, Bounds, Call, Effect, Facts, Message, Recorded, Snapshot
from tests.checker.fold import Fold, step_of, walk
from tests.checker.plans import Plan

__all__ = ["Case", "Index", "Violation", "cases_of", "execution_of", "of_step", "slot_key", "told"]

SHOWN: Final = 400

Key = tuple[str, str]
"""Tenant and execution."""


@dataclass(frozen=True)
class Violation:
    """A promise that was broken."""

    promise: str
    tenant: str
    execution: str
    what: str
    evidence: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [f"{self.promise} {self.tenant}.{self.execution}: {self.what}"]
        return "\n    ".join(lines + self.evidence)


def told(fact: Any) -> str:
    """A fact as a line of evidence."""
    if isinstance(fact, str):
        return fact
    if isinstance(fact, Recorded):
        body = json.dumps(fact.data, separators=(",", ":"), ensure_ascii=False)
        who = f"{fact.body.get('worker', '')} epoch {fact.body.get('epoch', '')}"
        text = f"#{fact.seq} at {fact.sequence}, {fact.body.get('timestamp', '')} {who} {fact.name} {body}"
    else:
        text = repr(fact)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"


class Index:
    """The facts by name, found once for all executions."""

    def __init__(self, facts: Facts) -> None:
        self.journals = facts.journals()
        self.calls: dict[Key, list[Call]] = {}
        for call in facts.calls:
            self.calls.setdefault((call.tenant, call.execution), []).append(call)
        self.effects: dict[Key, list[Effect]] = {}
        for effect in facts.effects:
            self.effects.setdefault((effect.tenant, effect.execution), []).append(effect)
        self.alarms = {timer.subject for timer in facts.timers}
        self.queued = {(task.tenant, execution_of(task)) for task in facts.tasks}
        """The executions for which a task, or a step, lies in a queue."""
        self._documents = {(one.tenant, one.workflow, one.version): one.document for one in facts.definitions}
        self._plans: dict[tuple[str, str, str], Plan] = {}

    def document(self, tenant: str, workflow: str, version: str) -> Body | None:
        """The plan of that name; None for a flow."""
        return self._documents.get((tenant, workflow, version))

    def plan(self, tenant: str, workflow: str, version: str) -> Plan | None:
        """The same, read."""
        key = (tenant, workflow, version)
        if key in self._documents and key not in self._plans:
            self._plans[key] = Plan(self._documents[key])
        return self._plans.get(key)


def execution_of(message: Message) -> str:
    """The execution that a message names, if it does."""
    return str(message.body.get("execution_id", "")) if isinstance(message.body, dict) else ""


@dataclass
class Case:
    """One execution."""

    facts: Facts
    bounds: Bounds
    index: Index
    tenant: str
    execution: str
    journal: list[Recorded]
    effects: list[Effect]
    snapshot: Snapshot | None
    status: dict[str, Any] | None

    def walk(self) -> Iterator[tuple[Fold, Recorded]]:
        """The state before each event, and the event."""
        return walk(self.journal)

    def end(self) -> Fold:
        """The state after all events."""
        return self.after(len(self.journal))

    def after(self, count: int) -> Fold:
        """The state after so many events."""
        fold = Fold()
        for event in self.journal[:count]:
            fold.apply(event)
        return fold

    def document(self, fold: Fold) -> Body | None:
        """What an execution in this state runs; None for a flow."""
        return self.index.document(self.tenant, fold["workflow"], fold["version"]) if fold.plain else None

    def broken(self, promise: str, what: str, *evidence: Any) -> Violation:
        """A violation of ``promise`` by this execution."""
        return Violation(promise, self.tenant, self.execution, what, [told(fact) for fact in evidence])

    def late_ms(self, due_ms: int) -> int:
        """When something that is due at a moment has to have happened at the latest.

        What is due just after a fault has as long as what was due in it.
        """
        quiet = self.facts.quiet_after(due_ms, self.bounds.late_ms)
        ends = (fault.until_ms for fault in self.facts.faults if fault.until_ms <= quiet)
        back_ms = max(ends, default=due_ms - self.bounds.return_ms)
        return max(due_ms + self.bounds.late_ms, back_ms + self.bounds.return_ms)

    @property
    def calls(self) -> list[Call]:
        """What was asked of it."""
        return self.index.calls.get((self.tenant, self.execution), [])

    @property
    def settled_ms(self) -> int:
        """When this execution has to have come to an end, or to rest."""
        calls = [call.answered_ms for call in self.calls]
        faults = [fault.until_ms for fault in self.facts.faults]
        last = self.journal[-1].stored_ms if self.journal else 0
        return max([last, *calls, *faults]) + self.bounds.settle_ms


def cases_of(facts: Facts, bounds: Bounds) -> Iterator[Case]:
    """Every execution that has a journal."""
    snapshots = {(one.tenant, one.execution): one for one in facts.snapshots}
    statuses = {(one.tenant, one.execution): one.document for one in facts.statuses}
    index = Index(facts)
    for key, journal in index.journals.items():
        tenant, execution = key
        yield Case(
            facts=facts,
            bounds=bounds,
            index=index,
            tenant=tenant,
            execution=execution,
            journal=journal,
            effects=index.effects.get(key, []) + index.effects.get(("", execution), []),
            snapshot=snapshots.get(key),
            status=statuses.get(key),
        )


def slot_key(key: str, slot: str) -> str:
    """The idempotency key of a slot: ``<execution>:<step>:<n>``, and ``:undo`` for what undoes it."""
    step, _, rest = slot.partition(":")
    number = rest if rest[:1].isdigit() else f"1:{rest}" if rest else "1"
    return f"{key}:{step}:{number}"


def of_step(fold: Fold, step: str) -> list[dict[str, Any]]:
    """The slots of a step, those that undo it apart."""
    return [
        slot for slot_id, slot in fold.slots.items() if step_of(slot_id) == step and ":undo" not in slot_id
    ]
