"""The judge: every promise, held against the facts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from tests.checker.case import Case, Violation, cases_of
from tests.checker.facts import Bounds, Facts
from tests.checker.promises import (
    chain,
    children,
    effects,
    ends,
    pauses,
    replay,
    results,
    snapshots,
    starts,
    tenants,
    times,
    undo,
)

__all__ = ["PROMISES", "UNREADABLE", "Bounds", "Violation", "judge"]

PROMISES: Final = {
    "I1": "every acknowledged start is exactly one execution",
    "I2": "every execution is terminal, or rightly waiting, soon after the faults stop",
    "I3": "each journal is one chain, every event a legal successor",
    "I4": "at most one recorded result per step and attempt, no successor starts before it",
    "I5": "compensations are exactly the completed compensable steps, in reverse, recorded once",
    "I6": "fold(journal) = snapshot = status",
    "I7": "timers never early, late within bounds",
    "I8": "nothing starts between a durable pause and its resume",
    "I9": "no tenant's canary appears at another's",
    "I10": "replaying any journal gives the same commands",
    "I11": "an at_most_once step's side effect happens at most once; others at least once with one "
    "idempotency key",
    "I12": "no child lives on when nobody waits for it any more, unless it was to be abandoned",
}

UNREADABLE: Final = "the facts can't be read"

_OF_ALL: Final[dict[str, Callable[[Facts, Bounds], Iterator[Violation]]]] = {
    "I1": starts.check,
    "I2": ends.check_all,
    "I9": tenants.check,
}
_OF_EACH: Final[dict[str, Callable[[Case], Iterator[Violation]]]] = {
    "I2": ends.check,
    "I3": chain.check,
    "I4": results.check,
    "I5": undo.check,
    "I6": snapshots.check,
    "I7": times.check,
    "I8": pauses.check,
    "I10": replay.check,
    "I11": effects.check,
    "I12": children.check,
}


def judge(facts: Facts, bounds: Bounds | None = None) -> list[Violation]:
    """All that breaks a promise, by promise; an empty list is the verdict that every one was kept.

    Args:
        facts: what is judged.
        bounds: what is tolerated; None: what the facts themselves say, or else the defaults.

    Facts that make no sense break a promise, too, and never the judge.
    """
    bounds = bounds or facts.bounds or Bounds()
    found: list[Violation] = []
    for promise, check_all in _OF_ALL.items():
        found += _held(promise, "", "", check_all(facts, bounds))
    for case in cases_of(facts, bounds):
        for promise, check in _OF_EACH.items():
            found += _held(promise, case.tenant, case.execution, check(case))
    order = list(PROMISES)
    return sorted(found, key=lambda violation: order.index(violation.promise))


def _held(promise: str, tenant: str, execution: str, found: Iterator[Violation]) -> Iterator[Violation]:
    try:
        yield from found
    except (LookupError, TypeError, ValueError, AttributeError, AssertionError, RecursionError) as error:
        what = f"{UNREADABLE}: {type(error).__name__} {error}"
        yield Violation(promise, tenant, execution, what)
