"""A recorded run, and hands that falsify it: each method changes what is recorded in one way."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

from tests.checker.facts import Effect, Facts, Recorded, load
from tests.checker.judge import UNREADABLE, Bounds, judge

__all__ = ["BOUNDS", "Falsify", "Run", "broken", "moved", "names"]

RECORDED = Path(__file__).parent / "recorded.json"
BOUNDS = Bounds(settle_ms=0)
"""Nothing moved any more when the run was recorded."""


@cache
def _recorded() -> Facts:
    return load(RECORDED)


def broken(facts: Facts) -> set[str]:
    """The promises that the judge finds broken, for a reason that it can name."""
    found = judge(facts, BOUNDS)
    return {violation.promise for violation in found if UNREADABLE not in violation.what}


def moved(moment: str, ms: int) -> str:
    """A moment, later by ``ms``."""
    at = datetime.fromisoformat(moment).astimezone(UTC) + timedelta(milliseconds=ms)
    return f"{at:%Y-%m-%dT%H:%M:%S}.{at.microsecond // 1000:03d}Z"


class Run:
    """A run of one's own, to be falsified."""

    def __init__(self, tenant: str = "acme") -> None:
        self.facts: Facts = copy.deepcopy(_recorded())
        self.tenant = tenant

    def journal(self, execution: str) -> list[Recorded]:
        return [one for one in self.facts.events if one.key == (self.tenant, execution)]

    def event(self, execution: str, name: str, nth: int = 0, **data: Any) -> Recorded:
        """The nth event of that name, with that data."""
        found = [
            one
            for one in self.journal(execution)
            if one.name == f"workflow_{name}"
            and all(one.data.get(key) == value for key, value in data.items())
        ]
        return found[nth]

    def put(self, old: Recorded, new: Recorded) -> Recorded:
        self.facts.events[self.facts.events.index(old)] = new
        return new

    def data(self, event: Recorded, **changed: Any) -> Recorded:
        """Change what an event carries."""
        return self.put(event, replace(event, body={**event.body, "data": {**event.data, **changed}}))

    def envelope(self, event: Recorded, **changed: Any) -> Recorded:
        """Change what an event says of itself."""
        return self.put(event, replace(event, body={**event.body, **changed}))

    def stored(self, event: Recorded, by_ms: int) -> Recorded:
        """Change when an event was stored."""
        return self.put(event, replace(event, stored_ms=event.stored_ms + by_ms))

    def drop(self, event: Recorded) -> None:
        self.facts.events.remove(event)

    def cut(self, event: Recorded) -> None:
        """Drop an event and all that came after it, and whatever has seen them."""
        for one in self.journal(event.key[1]):
            if one.sequence >= event.sequence:
                self.drop(one)
        self.forget(event.key[1])

    def forget(self, execution: str) -> None:
        """Drop what else is known of an execution: its snapshot and its status."""
        facts, key = self.facts, (self.tenant, execution)
        facts.snapshots = [one for one in facts.snapshots if (one.tenant, one.execution) != key]
        facts.statuses = [one for one in facts.statuses if (one.tenant, one.execution) != key]

    def twice(self, event: Recorded, **data: Any) -> None:
        """Store an event twice, with ids of its own, as a driver that does not know of the first would."""
        body = {**event.body, "id": event.body["id"] + "-again", "data": {**event.data, **data}}
        at = self.facts.events.index(event)
        self.facts.events.insert(at + 1, replace(event, body=body))
        self.renumber(event.key[1])

    def swap(self, one: Recorded, other: Recorded) -> None:
        """Two events in the other order, numbered as if they had been stored so."""
        events = self.facts.events
        first, second = events.index(one), events.index(other)
        events[first], events[second] = other, one
        self.renumber(one.key[1])

    def renumber(self, execution: str) -> None:
        """Number the events of an execution as they come, so that the numbers give nothing away."""
        sequences = sorted(one.sequence for one in self.journal(execution))
        for number, event in enumerate(self.journal(execution)):
            new = replace(event, sequence=sequences[number], body={**event.body, "seq": number + 1})
            self.put(event, new)

    def snapshot(self, execution: str, change: Callable[[dict[str, Any]], Any]) -> None:
        for one in self.facts.snapshots:
            if (one.tenant, one.execution) == (self.tenant, execution):
                change(one.state)

    def status(self, execution: str, **changed: Any) -> None:
        for one in self.facts.statuses:
            if (one.tenant, one.execution) == (self.tenant, execution):
                one.document.update(changed)

    def row(self, execution: str, step: str) -> dict[str, Any]:
        """What the status says of a step, to be changed in place."""
        rows: list[dict[str, Any]] = self.document(execution)["steps"]
        (found,) = (row for row in rows if row["step"] == step)
        return found

    def document(self, execution: str) -> dict[str, Any]:
        """The status of an execution, to be changed in place."""
        key = (self.tenant, execution)
        (found,) = (one for one in self.facts.statuses if (one.tenant, one.execution) == key)
        return found.document

    def effect(self, key: str, nth: int = 0) -> Effect:
        found = [one for one in self.facts.effects if (one.tenant, one.key) == (self.tenant, key)]
        return found[nth]

    def change_effect(self, effect: Effect, **changed: Any) -> None:
        self.facts.effects[self.facts.effects.index(effect)] = replace(effect, **changed)

    def plan(self, workflow: str) -> dict[str, Any]:
        """The document of a workflow, to be changed in place."""
        found = [
            one for one in self.facts.definitions if (one.tenant, one.workflow) == (self.tenant, workflow)
        ]
        return found[0].document

    def broken(self) -> set[str]:
        return broken(self.facts)


Falsify = Callable[[Run], object]
"""Changes what is recorded in one way."""


def names(falsified: list[tuple[str, Falsify]]) -> list[str]:
    """What the cases are called."""
    return [f"{promise}-{falsify.__name__}" for promise, falsify in falsified]
