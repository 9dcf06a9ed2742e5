"""What an execution is told: how it starts, how an attempt ended, and what its program may know of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from wpa.kernel.program import ExecutionInfo, Program, Want
from wpa.model.events import Failure
from wpa.model.state import Parent, Seed, Slot, State
from wpa.model.times import rfc3339

__all__ = [
    "Attempt",
    "Start",
    "Taken",
    "attempt_data",
    "first_data",
    "info_at_start",
    "info_of",
    "takeover_data",
]


class Taken(msgspec.Struct, frozen=True, kw_only=True):
    """What a rerun begins with: slots, as they were settled, in order, and what led to them."""

    settled: tuple[Slot, ...] = ()
    recorded: tuple[Any, ...] = ()
    """What the program came by before the last of them was settled."""
    seeds: tuple[Seed, ...] = ()
    """What it drew from until then."""


class Start(msgspec.Struct, frozen=True, kw_only=True):
    """What a start task asks for, already checked."""

    tenant: str
    execution: str
    start_hash: str
    input: Any = None
    stored_input: Any = None
    """``input`` as the journal keeps it: the same, or a reference to the object store."""
    variables: dict[str, Any] = msgspec.field(default_factory=dict)
    metadata: dict[str, Any] = msgspec.field(default_factory=dict)
    context: dict[str, Any] = msgspec.field(default_factory=dict)
    lease: str = ""
    seed: str = ""
    """Randomness for the program, hexadecimal."""
    start_at_ms: int = 0
    """Begin nothing before this moment."""
    parent: Parent | None = None
    forked_from: str = ""
    taken: Taken = Taken()
    """What is taken over from the execution that this one is a rerun of."""


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """How one attempt at a slot ended. ``stored`` is ``output`` as the journal keeps it."""

    slot: str
    started_ms: int
    output: Any = None
    stored: Any = None
    error: Failure | None = None


def info_of(state: State) -> ExecutionInfo:
    """What the program may know of the execution."""
    return ExecutionInfo(
        id=state.execution,
        tenant=state.tenant,
        workflow=state.workflow,
        version=state.version,
        started_at=state.run_started_at or state.created_at,
        metadata=state.metadata,
        context=state.context,
        seed=state.seed,
        taken_seeds=tuple(state.taken_seeds),
        recorded=tuple(state.recorded),
        replayed=len(state.order) + (state.cleanup is not None),
        rebuilt=state.begun,
    )


def info_at_start(program: Program, start: Start, begins_ms: int) -> ExecutionInfo:
    """The same of an execution that begins at ``begins_ms``."""
    return ExecutionInfo(
        id=start.execution,
        tenant=start.tenant,
        workflow=program.id,
        version=program.version,
        started_at=rfc3339(begins_ms),
        metadata=start.metadata,
        context=start.context,
        seed=start.seed,
        taken_seeds=start.taken.seeds,
        recorded=start.taken.recorded,
        replayed=len(start.taken.settled),
    )


def first_data(program: Program, start: Start, begins_ms: int) -> dict[str, Any]:
    """What the first event says of the start."""
    data: dict[str, Any] = {
        "version": program.version,
        "definition_hash": program.hash,
        "start_hash": start.start_hash,
        "lease": start.lease,
        "input": start.input if start.stored_input is None else start.stored_input,
    }
    for key in ("variables", "metadata", "context", "seed", "forked_from"):
        if value := getattr(start, key):
            data[key] = value
    if start.parent is not None:
        data["parent"] = start.parent
    taken = start.taken
    told = {"settled": taken.settled, "recorded": taken.recorded, "taken_seeds": taken.seeds}
    data |= {key: list(values) for key, values in told.items() if values}
    if program.timeout_ms is not None:
        data["deadline_at"] = rfc3339(begins_ms + program.timeout_ms)
    return data


def attempt_data(slot: Slot, want: Want, started_ms: int, now_ms: int) -> dict[str, Any]:
    """What the event that ends an attempt says of it."""
    data = {
        "step": want.step,
        "slot": slot.id,
        "uses": want.uses,
        "attempt": slot.attempt,
        "started_at": rfc3339(started_ms),
        "finished_at": rfc3339(now_ms),
        "duration_ms": max(0, now_ms - started_ms),  # the clock may be set back in between
    }
    if want.undoes:
        data["undoes"] = want.undoes
    return data


def takeover_data(state: State, wants: Mapping[str, Want], reason: str, now_ms: int) -> dict[str, Any]:
    """What the event with which another worker takes over says: what ran in the one before, and is lost."""
    slots, now = state.slots, rfc3339(now_ms)
    lost = [s for s in state.open if slots[s].kind == "step" and slots[s].retry_at <= now]
    data: dict[str, Any] = {"previous_worker": state.worker, "reason": reason, "lost": lost}
    if uses := {s: wants[s].uses for s in lost if s in wants and not slots[s].uses}:
        data["uses"] = uses
    return data
