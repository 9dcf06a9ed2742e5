"""I6, step by step: each row of a status document shows what the fold knows of its slots."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final

from tests.checker.case import Case, Violation, of_step
from tests.checker.facts import Body
from tests.checker.fold import TERMINAL, Fold, step_of
from tests.checker.forms import Slot, failure

__all__ = ["check", "shows"]

SHOWN_CHARS: Final = 128
"""Values up to this length, as JSON, are never elided."""
MOMENTS: Final = ("started_at", "finished_at", "retry_at", "until", "name")
LIVE: Final = ("running", "retrying", "waiting", "cancelled")
"""What a loop that is not over may be: as the first of these that any of its turns is."""


def check(case: Case, fold: Fold, document: Body) -> Iterator[Violation]:
    """The rows of a status document, against the state after as many events as it has seen.

    A step that runs more than once is one row with ``turns``; what it comes to is taken from all its slots.
    What a step without a slot will do, only the program knows: it is pending, or skipped; skipped, once all
    is completed.
    """
    rows: list[Body] = document["steps"]
    yield from _complete(case, fold, [row["slot"] for row in rows])
    for row in rows:
        wrong = _loop(case, fold, row) if "turns" in row else _single(case, fold, row)
        lines = [*wrong, *_compensation(fold, row)]
        if lines:
            yield case.broken("I6", f"the status of step {row['slot']} is not the fold", *lines)


def shows(shown: Any, value: Any) -> bool:
    """Whether a document shows a value: as it is, or where it is long, with its longest parts left out."""
    if shown == value:
        return True
    if len(json.dumps(value)) <= SHOWN_CHARS:
        return False
    if isinstance(shown, dict) and isinstance(value, dict) and shown.keys() == value.keys():
        return all(_part_shown(shown[key], value[key]) for key in value)
    return _is_left_out(shown)


def _part_shown(shown: Any, value: Any) -> bool:
    """The deeper a part lies, the less of it is shown."""
    if isinstance(shown, dict) and isinstance(value, dict) and shown.keys() == value.keys():
        return all(_part_shown(shown[key], value[key]) for key in value)
    return shown == value or _is_left_out(shown)


def _is_left_out(shown: Any) -> bool:
    return isinstance(shown, dict) and shown.keys() == {"$omitted"}


# -- which rows there are --------------------------------------------------------------------


def _complete(case: Case, fold: Fold, shown: list[str]) -> Iterator[Violation]:
    """A plan shows each of its steps; a flow, and a plan that can't go on, whatever was opened.

    A flow may have other code by now: that wants what was settled, and what is open until the end; it need not
    want what was dropped.
    """
    opened = {slot for slot in fold.slots if not slot.endswith(":undo")}
    plan = case.document(fold)
    steps = {item["id"] for item in plan["steps"]} if plan is not None else set()
    if len(set(shown)) < len(shown):
        yield case.broken("I6", f"the status shows a step twice: {shown}")
    if plan is not None and set(shown) not in (steps, opened):
        yield case.broken("I6", f"the status shows {sorted(shown)} of the steps {sorted(steps)}")
    if plan is None:
        wanted = {*fold.order, *(() if fold.status in TERMINAL else fold.open)}
        if missing := (wanted & opened) - set(shown):
            yield case.broken("I6", f"the status does not show {sorted(missing)}")


# -- a step that runs once -------------------------------------------------------------------


def _single(case: Case, fold: Fold, row: Body) -> Iterator[str]:
    slot = fold.slots.get(row["slot"])
    if slot is None:
        if row["status"] not in (statuses := _unopened(fold)):
            yield f"status: {row['status']!r} for one of {statuses}"
        yield from _values(row, {"attempt": 0, "output": None, "error": None, **dict.fromkeys(MOMENTS)})
        return
    wanted = {
        **{name: slot[name] or None for name in MOMENTS},
        "status": _phase(fold, slot),
        "attempt": slot["attempt"],
        "started_at": slot["started_at"] or slot["opened_at"] or None,
        "error": slot["error"],
    }
    yield from _values(row, wanted)
    if not any(shows(row["output"], value) for value in _forms(case, slot["output"])):
        yield f"output: {row['output']!r:.160} for {slot['output']!r:.160}"


def _unopened(fold: Fold) -> list[str]:
    """What a step may be that has no slot."""
    return ["skipped"] if fold.status == "COMPLETED" else ["pending", "skipped"]


def _forms(case: Case, value: Any) -> tuple[Any, Any]:
    """A value as it is recorded, and as the program sees it."""
    return value, case.facts.resolve(value)


def _values(row: Body, wanted: Body) -> Iterator[str]:
    for name, value in wanted.items():
        shown = failure(row[name]) if name == "error" and row[name] else row[name]
        if shown != value:
            yield f"{name}: {shown!r:.160} for {value!r:.160}"


def _phase(fold: Fold, slot: Slot) -> str:
    if slot["status"] != "open":
        return str(slot["status"])
    if fold.status in TERMINAL:
        return "cancelled"  # the end came first
    if slot["retry_at"]:
        return "retrying"
    return "running" if slot["kind"] == "step" else "waiting"


# -- a step that runs more than once ---------------------------------------------------------


def _loop(case: Case, fold: Fold, row: Body) -> Iterator[str]:
    slots = of_step(fold, row["step"])
    phases = {_phase(fold, slot) for slot in slots}
    statuses = _loop_statuses(fold, phases) if slots else _unopened(fold)
    if row["status"] not in statuses:
        yield f"status: {row['status']!r} for one of {statuses}"
    yield from _values(row, {"attempt": max((slot["attempt"] for slot in slots), default=0)})
    yield from _turns(row, slots)
    told = failure(row["error"])["type"] if row["error"] else None
    if told not in _error_types(fold, slots, row["status"]):
        yield f"error: {row['error']!r:.160} is none of its turns'"
    outputs = _outputs(case, row, slots) if row["status"] in ("completed", "failed") else [None]
    if row["status"] == "failed":
        outputs.append(None)  # the execution has ended before the loop did
    if not any(shows(row["output"], value) for value in outputs):
        yield f"output: {row['output']!r:.160} for {outputs[0]!r:.160}"


def _loop_statuses(fold: Fold, phases: set[str]) -> list[str]:
    """What a loop may be, by what its turns are: whether it goes on when none is open, only the program knows."""
    found: list[str] = next(([phase] for phase in LIVE if phase in phases), ["completed"])
    if found == ["completed"] and fold.status != "COMPLETED":
        found.append("running")
    return [*found, "failed"] if "failed" in phases else found


def _turns(row: Body, slots: list[Slot]) -> Iterator[str]:
    """How many turns have ended; what fails the execution itself is not counted."""
    ended = [slot for slot in slots if _number(slot) and slot["status"] in ("completed", "failed")]
    failed = sum(slot["status"] == "failed" for slot in ended)
    turns = row["turns"]
    exactly = row["status"] == "completed"
    if turns["done"] > len(ended) or (exactly and turns["done"] < len(ended)):
        yield f"turns done: {turns['done']} for {len(ended)}"
    if turns["failed"] > failed or (exactly and turns["failed"] < failed):
        yield f"turns failed: {turns['failed']} for {failed}"
    if exactly and turns["total"] not in (None, len(ended)):
        yield f"turns in all: {turns['total']} for {len(ended)}"


def _error_types(fold: Fold, slots: list[Slot], status: str) -> set[str | None]:
    """Of what a loop may show as its error: why it has failed, or why a turn is tried again; None for nothing."""
    failed = [slot for slot in slots if slot["error"] and (status == "failed" or slot["retry_at"])]
    types: set[str | None] = {slot["error"]["type"] for slot in failed}
    over = status == "failed" and fold.status == "COMPLETED"
    return types if over else {*types, None}


def _number(slot: Slot) -> int:
    """Which turn of its loop a slot is, from 1; 0 for what is no turn: pauses between them, decisions."""
    if slot["id"] == step_of(slot["id"]):
        return 1
    rest = slot["id"].partition(":")[2]
    return int(rest) if rest.isdigit() else 0


def _outputs(case: Case, row: Body, slots: list[Slot]) -> list[Any]:
    """What the turns have come to, in both forms: of ``foreach`` all outputs, of ``repeat`` the last one."""
    found = {_number(slot): slot["output"] for slot in slots if slot["status"] == "completed"}
    found.pop(0, None)
    total = row["turns"]["total"]
    if total is None:
        return list(_forms(case, found[max(found)] if found else None))
    values = [_forms(case, found.get(number)) for number in range(1, total + 1)]
    return [list(form) for form in zip(*values, strict=True)] or [[]]


# -- what undoes it --------------------------------------------------------------------------


def _compensation(fold: Fold, row: Body) -> Iterator[str]:
    shown, undo = row["compensation"], f"{row['slot']}:undo"
    if undo not in fold["undo"] or shown is None:
        if undo in fold["undo"] or shown is not None:
            yield f"compensation: {shown!r:.160}, and to be undone is {fold['undo']}"
        return
    slot = fold.slots.get(undo)
    if slot is None:
        wanted: Body = {"uses": "", "status": "pending", "attempt": 0, "error": None}
        wanted |= dict.fromkeys(("started_at", "finished_at"))
    else:
        wanted = {name: slot[name] or None for name in ("started_at", "finished_at", "error")}
        status = "running" if slot["status"] == "open" else slot["status"]
        wanted |= {"uses": slot["uses"], "status": status, "attempt": slot["attempt"]}
    yield from (f"compensation: {line}" for line in _values(shown, wanted))
