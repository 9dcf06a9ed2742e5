"""What an execution is told: how it starts, how an attempt ended, and what its program may know of it."""

from __future__ import annotations

from typing import Any

import msgspec

from wpa.kernel.program import ExecutionInfo
from wpa.model.events import Failure
from wpa.model.state import Parent, Slot, State

__all__ = ["Attempt", "Start", "info_of"]


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
    settled: tuple[Slot, ...] = ()
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
        recorded=tuple(state.recorded),
        replayed=len(state.order),
        rebuilt=True,
    )
