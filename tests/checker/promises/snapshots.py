"""I6: fold(journal) = snapshot = status."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tests.checker.case import Case, Violation
from tests.checker.facts import Body, Recorded
from tests.checker.fold import ASKED, TERMINAL, Fold, step_of
from tests.checker.forms import normal
from tests.checker.promises import rows

__all__ = ["check"]


def check(case: Case) -> Iterator[Violation]:
    """The snapshot and the status, each with the fold of as many events as it has seen."""
    fold = case.end()
    if not fold.plain:
        return
    rests = fold.status in TERMINAL or not fold["lease"]
    quiet = case.facts.taken_ms >= case.settled_ms
    state = case.snapshot.state if case.snapshot is not None else None
    seen = int(state.get("seq", 0)) if state is not None else 0
    last = case.journal[-1]
    if seen > last.seq:
        yield case.broken("I6", f"the snapshot has seen {seen} events, and there are {last.seq}", last)
    elif rests and quiet and any(_is_drivers(event) for event in case.journal[seen:]):
        yield case.broken("I6", f"it is {fold.status}, and its snapshot has seen {seen} events only", last)
    if state is not None and 0 < seen <= last.seq:
        wanted = case.after(seen).snapshot()
        if "rest_epoch" not in state:  # former releases did not keep it
            wanted.pop("rest_epoch", None)
        yield from _differ(case, "the snapshot", normal(state), wanted)
    if case.status is not None:
        yield from _status(case, case.status)
    elif case.facts.statuses_asked:
        yield case.broken("I6", "its status was asked for, and nobody has told it", last)


def _is_drivers(event: Recorded) -> bool:
    """Whether whoever wrote an event drove, or has ended, the execution. What is only asked of one at rest is
    in the tail: its snapshot may be older."""
    name = event.name.removeprefix("workflow_")
    return name not in ASKED or name == "cancelled" or bool(event.data.get("lease"))


def _differ(case: Case, what: str, found: Body, wanted: Body) -> Iterator[Violation]:
    keys = [key for key in sorted({*found, *wanted}) if found.get(key) != wanted.get(key)]
    if keys:
        lines = [f"{key}: {found.get(key)!r:.160} for {wanted.get(key)!r:.160}" for key in keys]
        yield case.broken("I6", f"{what} is not the fold: {', '.join(keys)}", *lines)


def _status(case: Case, document: Body) -> Iterator[Violation]:
    seen = document.get("events", 0)
    if not 0 < seen <= case.journal[-1].seq:
        yield case.broken("I6", f"the status has seen {seen} events, and there are {len(case.journal)}")
        return
    fold = case.after(seen)
    yield from _differ(case, "the status", _shown(document), _as_shown(fold))
    if not rows.shows(document["output"], fold["output"]):
        yield case.broken("I6", f"the status shows {document['output']!r:.200} for {fold['output']!r:.200}")
    yield from rows.check(case, fold, document)


NAMES = ("workflow", "version", "execution", "epoch", "worker", "created_at", "run", "failed_step")


def _shown(document: Body) -> Body:
    found: Body = {name: document.get(name) or "" for name in NAMES}
    found.update(workflow=document.get("workflow_id"), execution=document.get("execution_id"))
    error = document.get("error") or {}
    return {
        **found,
        "status": document.get("status"),
        "finished_at": document.get("finished_at") or "",
        "error": (error.get("type"), error.get("message")),
        "undone": document.get("undone"),
        "not_undone": document.get("not_undone"),
        "open": document.get("current_steps"),
    }


def _as_shown(fold: Fold) -> Body:
    error: dict[str, Any] = fold["error"] or {}
    return {
        **{name: fold[name] for name in (*NAMES, "finished_at", "undone", "not_undone")},
        "status": fold.status,
        "error": (error.get("type"), error.get("message")),
        "open": [step_of(slot) for slot in fold.open],
    }
