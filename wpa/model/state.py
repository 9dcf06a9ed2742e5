"""The state of one execution: fold(events), kept in the key-value store as a snapshot.

State is derived, never the truth: it can be thrown away and folded again from the journal. Only
:mod:`wpa.kernel.fold` changes it.
"""

from __future__ import annotations

import zlib
from typing import Any, Final, Literal

import msgspec

from wpa.errors import Newer
from wpa.model.events import WORKER_LOST, Failure

__all__ = [
    "CLEANUP_FORMAT",
    "FORMAT",
    "SEEDS_FORMAT",
    "Cancel",
    "Cleanup",
    "Parent",
    "Seed",
    "Signal",
    "Slot",
    "State",
    "decode_state",
    "encode_state",
    "is_terminal",
    "pack",
]

PACKED: Final = b"\x01"
"""What a compressed snapshot begins with; JSON begins with a brace."""
FORMAT: Final = 4
"""The newest format that is read here. Raised whenever an older worker could misread a snapshot."""
OLDEST_FORMAT: Final = 2
"""The format of a snapshot that names none."""
CLEANUP_FORMAT: Final = 3
"""The format of a snapshot that an older worker would misread because of its ``cleanup``."""
SEEDS_FORMAT: Final = 4
"""The format of a snapshot of an execution that has drawn from more than one seed: an older worker knows only
of the first."""

SlotKind = Literal["step", "timer", "signal", "approval", "child", "remote"]
SlotStatus = Literal["open", "completed", "failed", "decided", "cancelled"]
Status = Literal[
    "RUNNING", "WAITING", "PAUSED", "COMPENSATING", "COMPLETED", "FAILED", "ROLLED_BACK", "CANCELLED"
]


class Signal(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Something told to an execution, kept until a slot takes it.

    ``slot`` addresses one slot (an answer to an approval, a child's end, a remote step's result); without
    it, the first slot that waits for ``name`` takes it.
    """

    id: str
    name: str = ""
    payload: Any = None
    slot: str = ""
    by: dict[str, Any] = msgspec.field(default_factory=dict)
    at: str = ""


class Cancel(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A cancel that was asked for, and by whom."""

    compensate: bool = True
    reason: str = ""
    by: dict[str, Any] = msgspec.field(default_factory=dict)


class Cleanup(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The program was told that the execution is to end, and does what it has to do before.

    ``after`` is how many settlements it had been told of: its place in their order, at each rebuild.
    """

    after: int
    began_at: str
    until: str
    """The program is not waited for any longer than this."""
    compensate: bool = True
    """Whether it is to undo what it did."""


class Parent(msgspec.Struct, frozen=True, kw_only=True):
    """The execution, and its slot, that waits for this one."""

    execution_id: str
    slot: str


class Seed(msgspec.Struct, frozen=True, kw_only=True):
    """What a program's chance was drawn from, before another seed took its place."""

    seed: str
    until: int
    """So many settlements the program had been told of by then."""


class Slot(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A durable promise: opened once, settled once. ``attempt`` counts starts, from 1."""

    id: str
    kind: SlotKind = "step"
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
    until: str = ""
    """When a wait is over: a timer's moment, or the time-out of anything else."""
    name: str = ""
    """What is waited for: a signal's name, a child's execution id, a remote step's queue."""
    escalations: int = 0
    """How many of an approval's escalations have been announced."""
    abandon: bool = False
    """A child that goes on when nobody waits for it any more."""
    undoes: str = ""
    """The slot whose work this one has undone, or tried to, because the program asked for it."""
    output: Any = None
    error: Failure | None = None

    @property
    def step(self) -> str:
        return self.id.partition(":")[0]

    @property
    def in_flight(self) -> bool:
        """Open, with an attempt that runs here (or ran when its worker died)."""
        return self.status == "open" and self.kind == "step" and not self.retry_at

    @property
    def under_way(self) -> bool:
        """Open, with an attempt that runs here or in another worker group."""
        return self.status == "open" and self.kind in ("step", "remote") and not self.retry_at


class State(msgspec.Struct, kw_only=True, omit_defaults=True):
    """All that is needed to drive an execution on, given its definition."""

    format: int = OLDEST_FORMAT
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
    """The identity of the task that drives this execution; empty while it is at rest."""
    status: Status = "RUNNING"
    epoch: int = 1
    worker: str = ""
    seq: int = 0
    position: int = 0
    """Where the journal's last folded event is stored: the next append's expectation."""
    lost: int = 0
    """Attempts that were lost with their worker, over all slots."""
    created_at: str = ""
    start_at: str = ""
    """Nothing begins before this moment. Empty when it has begun."""
    deadline_at: str = ""
    wake_at: str = ""
    """The alarm that was set when the execution came to rest."""
    rest_epoch: int = 0
    """The epoch in which it came to rest last; its alarm is named after it (0: it is not)."""
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
    cancel: Cancel | None = None
    cleanup: Cleanup | None = None
    blocked: Failure | None = None
    """Why the execution can't go on for now; it is tried again from time to time."""
    signals: list[Signal] = msgspec.field(default_factory=list)
    """What was told to the execution and has not been taken by a slot."""
    signal_ids: list[str] = msgspec.field(default_factory=list)
    """The ids of the last signals, and of what else was asked: what comes twice counts once."""
    parent: Parent | None = None
    forked_from: str = ""
    """The execution that this one is a rerun of."""
    seed: str = ""
    """The randomness of this run, hexadecimal."""
    taken_seeds: list[Seed] = msgspec.field(default_factory=list)
    """What a rerun drew from, in order, as long as it was told of what it takes over."""
    recorded: list[Any] = msgspec.field(default_factory=list)
    """Values that the program came by, in order."""
    run: int = 1
    """Raised by each continue_as_new."""
    run_started_at: str = ""
    run_seq: int = 0
    """``seq`` when this run began."""

    @property
    def begun(self) -> bool:
        """Whether the program was asked what it wants, and what it came by is recorded: not before a delayed
        start, unless it had to be told of what it takes over."""
        return not self.start_at or bool(self.order)

    @property
    def at_rest(self) -> bool:
        """Whether nobody drives the execution."""
        return not self.lease

    @property
    def ends_workers(self) -> bool:
        """Whether it is blocked since its workers ended at what comes next, and would again."""
        return self.blocked is not None and self.blocked.type == WORKER_LOST

    @property
    def key(self) -> str:
        """What this run's idempotency keys begin with."""
        return self.execution if self.run == 1 else f"{self.execution}.{self.run}"


def is_terminal(status: str) -> bool:
    """Whether nothing can follow."""
    return status in ("COMPLETED", "FAILED", "ROLLED_BACK", "CANCELLED")


class _Format(msgspec.Struct):
    format: int = OLDEST_FORMAT


_ENCODER = msgspec.json.Encoder()
_DECODER = msgspec.json.Decoder(State)
_FORMAT_DECODER = msgspec.json.Decoder(_Format)


def encode_state(state: State) -> bytes:
    """The snapshot's bytes (JSON, so that an operator can read it)."""
    return _ENCODER.encode(state)


def decode_state(data: bytes) -> State:
    """The inverse of :func:`encode_state`, packed or not.

    Raises Newer where this worker is too old, and ValueError for what is no snapshot.
    """
    try:
        if data[:1] == PACKED:
            data = zlib.decompress(data[1:])
        try:
            state = _DECODER.decode(data)
            found = state.format
        except msgspec.ValidationError:
            found = _FORMAT_DECODER.decode(data).format
            if found <= FORMAT:
                raise
    except (msgspec.DecodeError, zlib.error, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"no snapshot: {error}") from None
    if found > FORMAT:
        raise Newer(f"the snapshot has format {found}; this worker reads up to {FORMAT}: upgrade it")
    return state


def pack(data: bytes) -> bytes:
    """A large snapshot for the store: compressed, about ten to one. Releases the interpreter's lock."""
    return PACKED + zlib.compress(data, 1)
