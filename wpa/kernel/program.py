"""The program protocol: the one door through which the kernel sees a workflow.

A program says what a workflow wants; it never does anything. Plans (JSON) and flows (Python) are
both programs, so whatever one of them can do durably, the other can.

A :class:`Run` is one execution's pass through a program, rebuilt from the journal by settling its
slots in the order in which they were recorded. The contract between kernel and run:

1. The kernel calls :meth:`Run.poll` after ``begin`` and after every :meth:`Run.settle`.
2. ``poll`` returns the wants that are *new* since the last poll, in program order. A slot is wanted
   once in a run's life, and settled at most once, after it was wanted.
3. The same program, the same input and the same settlements in the same order give the same wants.
   No clock, no randomness, no I/O: a run is a function of its slots.
4. A run may be thrown away at any moment and rebuilt; nothing of it is stored.
5. ``poll`` may also say that slots it wanted are not wanted any more (``dropped``). The kernel closes
   them, stops what runs for them, and never settles them. Or that nobody waits for them any more, but for
   what has begun of them (``left``): the kernel begins none of them, and settles those that run.
6. A run that is :class:`CleansUp` is told once, between two settlements, that its execution is to end. It may
   want more slots then; the execution ends when it has, or when its time for that is over. Of any other run,
   what it wants is given up at once.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Final, Literal, Protocol

import msgspec

from wpa.errors import Problem
from wpa.model.events import Failure
from wpa.model.state import Seed

__all__ = [
    "CANCELLED",
    "Approval",
    "Child",
    "CleansUp",
    "Continued",
    "Escalation",
    "ExecutionInfo",
    "Failed",
    "Finished",
    "OnError",
    "Outcome",
    "Program",
    "Progress",
    "Retry",
    "Run",
    "Settled",
    "StepPolicy",
    "StepView",
    "Wait",
    "Waiting",
    "Want",
    "WantKind",
]

CANCELLED: Final = "Cancelled"
"""The type of the failure of what ends because it was cancelled."""

OnError = Literal["fail", "continue", "compensate"]
WantKind = Literal["step", "decision", "timer", "signal", "approval", "child"]


class Retry(msgspec.Struct, frozen=True, kw_only=True):
    """When a failed attempt is tried again. Empty ``retry_on`` means every retryable error type."""

    max_attempts: int = 3
    initial_ms: int = 1_000
    factor: float = 2.0
    max_ms: int = 60_000
    jitter: float = 0.2
    """The share of the backoff that is spread, 0 to 1: 0.2 gives 80 to 100 per cent of it."""
    retry_on: tuple[str, ...] = ()
    give_up_on: tuple[str, ...] = ()


class StepPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """How a step is to be run, apart from what it does."""

    retry: Retry = Retry()
    timeout_ms: int | None = None
    """Of each attempt."""
    deadline_ms: int | None = None
    """Of all attempts together, from the moment the slot was opened."""
    on_error: OnError = "fail"
    priority: int = 5
    queue: str = ""
    at_most_once: bool = False


DEFAULT_POLICY = StepPolicy()


class Escalation(msgspec.Struct, frozen=True, kw_only=True):
    """Who else may answer an approval, ``after_ms`` milliseconds after it was opened."""

    after_ms: int
    users: tuple[str, ...] = ()
    roles: tuple[str, ...] = ()


class Approval(msgspec.Struct, frozen=True, kw_only=True):
    """Who may answer, and how many of them have to approve. Nobody named: anybody may."""

    users: tuple[str, ...] = ()
    roles: tuple[str, ...] = ()
    count: int = 1
    """So many different people have to approve; one rejection ends it."""
    escalations: tuple[Escalation, ...] = ()
    message: str = ""


class Child(msgspec.Struct, frozen=True, kw_only=True):
    """Another execution, started by this one."""

    workflow: str
    version: str = ""
    input: Any = None
    execution: str = ""
    """Its id; one is derived from the parent's id and the slot where empty."""
    detached: bool = False
    """Settled as soon as it is started; neither its failure nor a cancel is passed on."""
    on_cancel: Literal["cancel", "abandon"] = "cancel"
    """What becomes of it when the parent stops waiting for it."""


class Wait(msgspec.Struct, frozen=True, kw_only=True):
    """What a slot that is no work waits for. One of ``delay_ms`` and ``until`` for a timer; for the
    others they are the time-out, and neither means for ever."""

    delay_ms: int | None = None
    """From the moment the slot is opened."""
    until: str = ""
    """A moment, RFC 3339."""
    signal: str = ""
    """The name of the signal; kind ``signal`` only."""
    has_default: bool = False
    default: Any = None
    """With ``has_default``: the output when the time is out. Otherwise the slot fails, type Timeout."""
    approval: Approval | None = None
    child: Child | None = None


class Want(msgspec.Struct, frozen=True, kw_only=True):
    """One slot that a program wants settled.

    A ``step`` want is an attempt at work. A ``decision`` want is already decided (the program is
    pure, it knows): the kernel records ``decision`` and settles the slot with it. Of the others,
    ``wait`` says what is waited for: ``timer`` completes at its moment, ``signal`` with the payload of
    a signal of that name, ``approval`` with the verdict, ``child`` with the other execution's output.
    A want with a ``fault`` can't be attempted, for example because its inputs can't be computed: the
    kernel records the fault as the step's final failure.
    """

    slot: str
    step: str
    kind: WantKind = "step"
    uses: str = ""
    inputs: Any = None
    policy: StepPolicy = DEFAULT_POLICY
    wait: Wait | None = None
    trim: bool = False
    """Give the step only those of ``inputs`` that it takes, and ignore the rest."""
    undoes: str = ""
    """The slot whose work this one undoes, where the program itself asks for that."""
    decision: dict[str, Any] | None = None
    fault: Failure | None = None


class Settled(msgspec.Struct, frozen=True, kw_only=True):
    """How a slot ended. ``value`` is a step's output or a decision's record."""

    slot: str
    status: Literal["completed", "failed", "decided"]
    value: Any = None
    error: Failure | None = None
    at_ms: int = 0
    """When, in milliseconds since the Unix epoch: the only clock that a program sees."""


class Waiting(msgspec.Struct, frozen=True):
    """Not done: ``wants`` are the wants that are new since the last poll (perhaps none).

    ``dropped`` are slots that were wanted and, unsettled, aren't any more. ``recorded`` are values that
    the program came by and has to be given again, in this order, when it is rebuilt: objects, whose ``at``,
    where they have one, says after how many settlements. A rerun is given those of what it takes over.
    ``left`` are slots that are not to begin any more, and of whose end the program wants to be told if they
    have: that may have to be undone.
    """

    wants: tuple[Want, ...] = ()
    dropped: tuple[str, ...] = ()
    recorded: tuple[Any, ...] = ()
    left: tuple[str, ...] = ()


class Finished(msgspec.Struct, frozen=True):
    """Every path has ended. ``dropped`` and ``recorded``, here and below, are what they are in
    :class:`Waiting`."""

    output: Any
    dropped: tuple[str, ...] = ()
    recorded: tuple[Any, ...] = ()


class Failed(msgspec.Struct, frozen=True):
    """The program itself can't go on, for example because its output can't be computed. ``left`` is what it
    is in :class:`Waiting`."""

    error: Failure
    dropped: tuple[str, ...] = ()
    recorded: tuple[Any, ...] = ()
    left: tuple[str, ...] = ()


class Continued(msgspec.Struct, frozen=True):
    """Start over with this input, under the same id and with an empty history of slots."""

    input: Any
    dropped: tuple[str, ...] = ()
    recorded: tuple[Any, ...] = ()


Outcome = Waiting | Finished | Failed | Continued


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """Counts of steps (decisions not counted)."""

    total: int
    completed: int
    failed: int
    skipped: int = 0
    begun: float = 0.0
    """How much of the steps that run more than once is done; of two that are half done, 1.0."""

    @property
    def percentage(self) -> int:
        """What share of the steps is settled, in whole per cent."""
        done = self.completed + self.failed + self.skipped + self.begun
        return 100 if self.total == 0 else int(done * 100 / self.total)


class Turns(msgspec.Struct, frozen=True, kw_only=True):
    """How far a step is that runs more than once."""

    done: int
    """Turns that have ended, the failed ones too."""
    failed: int
    total: int | None = None
    """None where that turns out on the way."""


class StepView(msgspec.Struct, frozen=True, kw_only=True):
    """A step as the program sees it, for status and pictures."""

    step: str
    slot: str
    kind: WantKind
    uses: str
    phase: Literal["pending", "wanted", "settled", "skipped"]
    inputs: Any = None
    turns: Turns | None = None
    """For a step that runs more than once, each time in a slot of its own; ``slot`` is the first."""
    output: Any = None
    """What all turns together have come to. For any other step, its slot knows."""
    error: Failure | None = None
    site: str = ""
    """For what is wanted: the line of code that waits for it, where code is what wants it."""


class ExecutionInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What a program may know of the execution it runs in: nothing that a replay would change."""

    id: str
    tenant: str
    workflow: str
    version: str
    started_at: str
    metadata: dict[str, Any] = msgspec.field(default_factory=dict)
    context: dict[str, Any] = msgspec.field(default_factory=dict)
    seed: str = ""
    """Randomness of the execution's own, recorded at its start; hexadecimal."""
    taken_seeds: tuple[Seed, ...] = ()
    """What a rerun draws from before that, in order, until it is told of all that it takes over."""
    recorded: tuple[Any, ...] = ()
    """What :class:`Waiting` gave as ``recorded`` before, in order."""
    replayed: int = 0
    """How many settlements the run will be told from the journal before anything new happens."""
    rebuilt: bool = False
    """Whether another run of this very execution was polled before, up to and after those settlements, and
    what it asked for is recorded. False for a new execution, a rerun's too, at a delayed start, and after
    :class:`Continued`."""


class Run(Protocol):
    """One execution's pass through a program. See the module's contract."""

    def poll(self) -> Outcome:
        """What the program wants now that it did not want before, or how it ended."""
        ...

    def settle(self, settled: Settled) -> None:
        """Tell the run how a slot that it wanted has ended."""
        ...

    def undo(self, slot: str) -> Want | None:
        """The want that undoes a completed slot (its slot id is ``undo_slot(slot)``), if any."""
        ...

    def progress(self) -> Progress:
        """How far the run is."""
        ...

    def steps(self) -> list[StepView]:
        """Every step and decision, in definition order."""
        ...


class CleansUp(ABC):
    """A :class:`Run` with something to do before its execution ends early: cancelled, or at its deadline."""

    cleanup_ms: int
    """How long that may take, in milliseconds."""

    @abstractmethod
    def cancel(self, at_ms: int, *, compensate: bool) -> None:
        """Tell the run that its execution is to end; it is polled afterwards.

        Args:
            at_ms: the moment, in milliseconds since the Unix epoch.
            compensate: whether it is to undo what it did.
        """

    @abstractmethod
    def lets_go(self, slot: str) -> bool:
        """Whether it would surely drop a slot that it wants, were it cancelled now."""


class Program(Protocol):
    """A definition, ready to run. Immutable and shared by any number of runs."""

    @property
    def id(self) -> str: ...

    @property
    def version(self) -> str: ...

    @property
    def hash(self) -> str:
        """The hash of the content, pinned in every execution's first event."""
        ...

    @property
    def max_parallel(self) -> int: ...

    @property
    def timeout_ms(self) -> int | None:
        """How long an execution may take in all, waiting included; None: as long as it likes. Where the time
        is over in a pause, that takes effect when the pause ends."""
        ...

    @property
    def pinned(self) -> bool:
        """Whether only this very content may go on with an execution (plans). Where false (flows),
        other content may, as long as it asks for what is recorded."""
        ...

    def check_signal(self, name: str, payload: Any) -> list[Problem]:
        """Why a signal of this name and payload can be of no use to any execution; empty where it can."""
        ...

    def check_input(self, data: Any) -> list[Problem]:
        """Everything about ``data`` that the input schema refuses; empty where it fits."""
        ...

    def begin(self, data: Any, variables: dict[str, Any], info: ExecutionInfo) -> Run:
        """A new run over no slots."""
        ...
