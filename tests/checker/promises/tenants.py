"""I9: no tenant's canary appears at another's."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from tests.checker.case import Violation, told
from tests.checker.facts import Bounds, Facts

__all__ = ["check", "owned"]


def check(facts: Facts, bounds: Bounds) -> Iterator[Violation]:
    """Look for each canary in all that is another tenant's."""
    for tenant, what, fact in owned(facts):
        text = json.dumps(fact, ensure_ascii=False, default=str)
        for owner, canary in facts.canaries.items():
            if owner != tenant and canary in text:
                at = text.index(canary)
                shown = text[max(0, at - 80) : at + len(canary) + 40]
                yield Violation("I9", tenant, "", f"{what} holds the canary of {owner}", [told(shown)])


def owned(facts: Facts) -> Iterator[tuple[str, str, Any]]:
    """All that is some tenant's: whose, what it is called, and itself."""
    for event in facts.events:
        yield event.key[0], f"{event.subject} #{event.seq}", event.body
    for message in [*facts.tasks, *facts.timers, *facts.letters]:
        yield message.tenant, message.subject, [message.body, message.headers]
    for snapshot in facts.snapshots:
        yield snapshot.tenant, f"the snapshot of {snapshot.execution}", snapshot.state
    for definition in facts.definitions:
        yield definition.tenant, f"definition {definition.workflow}", definition.document
    for status in facts.statuses:
        yield status.tenant, f"the status of {status.execution}", status.document
    for key, payload in facts.payloads.items():
        yield key.partition("/")[0], f"payload {key}", payload
    for call in facts.calls:
        yield call.tenant, f"what {call.kind} {call.execution} was told", [call.code, call.why]
    for effect in facts.effects:
        if effect.tenant:
            yield effect.tenant, "the ledger", [effect.execution, effect.step, effect.key]
