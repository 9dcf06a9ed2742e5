"""The state of one execution: fold(events), kept in the key-value store as a snapshot.

State is derived, never the truth: it can be thrown away and folded again from the journal. Only
:mod:`wpa.kernel.fold` changes it.
"""

from __future__ import annotations

from typing import Any, Final, Literal

import msgspec

from wpa.errors import Newer
from wpa.model.events import Failure

__all__ = ["FORMAT", "Slot", "State", "decode_state", "encode_state", "is_terminal"]

FORMAT: Final = 1
"""Raised whenever an older worker could misread a snapshot."""

SlotStatus = Literal["open", "completed", "failed", "decided"]
Status = Literal["RUNNING", "COMPENSATING", "COMPLETED", "FAILED", "ROLLED_BACK"]


class Slot(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A durable promise: opened once, settled once. ``attempt`` counts starts, from 1."""

    id: str
    status: SlotStatus = "open"
    uses: str = ""
    attempt: int = 1
    failures: int = 0
    lost: int = 0
    """Attempts of which only the end of their worker is known."""
    opened_at: str = ""
    started_at: str = ""
    finished_at: str = ""
    retry_at: str = ""
    output: Any = None
    error: Failure | None = None

    @property
    def step(self) -> str:
        return self.id.partition(":")[0]

    @property
    def in_flight(self) -> bool:
        """Open, with an attempt that runs (or ran when its worker died)."""
        return self.status == "open" and not self.retry_at


class State(msgspec.Struct, kw_only=True, omit_defaults=True):
    """All that is needed to drive an execution on, given its definition."""

    format: int = FORMAT
    tenant: str
    workflow: str
    version: str
    execution: str
    definition_hash: str
    start_hash: str
    task_id: str = ""
    global_task_id: str = ""
    traceparent: str = ""
    lease: str = ""
    """The identity of the start task that drives this execution."""
    status: Status = "RUNNING"
    epoch: int = 1
    worker: str = ""
    seq: int = 0
    position: int = 0
    """Where the journal's last folded event is stored: the next append's expectation."""
    created_at: str = ""
    updated_at: str = ""
    finished_at: str = ""
    input: Any = None
    variables: dict[str, Any] = msgspec.field(default_factory=dict)
    metadata: dict[str, Any] = msgspec.field(default_factory=dict)
    context: dict[str, Any] = msgspec.field(default_factory=dict)
    slots: dict[str, Slot] = msgspec.field(default_factory=dict)
    order: list[str] = msgspec.field(default_factory=list)
    """Slots that the program has been told of, in the order of their settlement."""
    open: list[str] = msgspec.field(default_factory=list)
    failing: str = ""
    """The slot whose final failure ends the execution."""
    on_error: str = ""
    failed_step: str = ""
    error: Failure | None = None
    undo: list[str] = msgspec.field(default_factory=list)
    """Undo slots in the order in which they are run."""
    undone: list[str] = msgspec.field(default_factory=list)
    not_undone: list[str] = msgspec.field(default_factory=list)
    output: Any = None


def is_terminal(status: str) -> bool:
    """Whether nothing can follow."""
    return status in ("COMPLETED", "FAILED", "ROLLED_BACK", "CANCELLED")


class _Format(msgspec.Struct):
    format: int = FORMAT


_ENCODER = msgspec.json.Encoder()
_DECODER = msgspec.json.Decoder(State)
_FORMAT_DECODER = msgspec.json.Decoder(_Format)


def encode_state(state: State) -> bytes:
    """The snapshot's bytes (JSON, so that an operator can read it)."""
    return _ENCODER.encode(state)


def decode_state(data: bytes) -> State:
    """The inverse of :func:`encode_state`. Raises Newer where this worker is too old to read it."""
    found = _FORMAT_DECODER.decode(data).format
    if found > FORMAT:
        raise Newer(f"the snapshot has format {found}; this worker reads up to {FORMAT}: upgrade it")
    return _DECODER.decode(data)
