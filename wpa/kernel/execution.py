"""One execution, without I/O: what has happened goes in, what is to be recorded and run comes out.

Theory of operation. The shell holds one :class:`Execution` for each execution it drives and keeps
to this dialogue:

1. Something happened (a start, a step's end, a takeover): call the method of that name. It answers
   with a :class:`Draft`, an event not yet recorded.
2. Append the draft to the journal. Stored: call :meth:`Execution.record` with the sealed event; it
   answers with the slots that are now to be run. Not stored: throw the execution away, reload the
   journal, and decide again. A draft is never recorded in two places.
3. Call :meth:`Execution.follow_up` until it answers None: it gives the drafts that follow from the
   state alone (decisions, the begin of compensation, the end). Because they are derived and not
   remembered, a crash between any two appends heals at the next load.

Persist first, then act: no slot is run before the event that opened it is stored.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import msgspec

from wpa.errors import PlatformError
from wpa.kernel import saga, verdict
from wpa.kernel.draft import Draft, with_duration
from wpa.kernel.fold import fold
from wpa.kernel.program import (
    ExecutionInfo,
    Failed,
    Finished,
    Outcome,
    Program,
    Run,
    Settled,
    Waiting,
    Want,
)
from wpa.kernel.retry import backoff_ms, may_retry
from wpa.model import events as ev
from wpa.model.events import Event, Failure
from wpa.model.limits import Limits
from wpa.model.state import Slot, State, is_terminal
from wpa.model.times import rfc3339

__all__ = ["Attempt", "Diverged", "Draft", "Execution", "Start"]


class Diverged(PlatformError):
    """The program doesn't ask for what the journal says was done."""


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


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """How one attempt at a slot ended. ``stored`` is ``output`` as the journal keeps it."""

    slot: str
    started_ms: int
    output: Any = None
    stored: Any = None
    error: Failure | None = None


def _same(value: Any) -> Any:
    return value


class Execution:
    """See the module's theory of operation. Not thread-safe; owns its state."""

    def __init__(self, program: Program, run: Run, limits: Limits) -> None:
        self.program = program
        self.limits = limits
        self.state: State = None  # type: ignore[assignment]  # set by the first record, or by rebuild
        self.wants: dict[str, Want] = {}
        """Everything wanted and not settled, undo slots included."""
        self._run = run
        self._ready: list[str] = []
        """Wanted slots that are not open yet, in program order."""
        self._derived: list[str] = []
        """Wanted slots that need no running: decisions and faults."""
        self._outcome: Outcome = Waiting()

    # -- beginnings --------------------------------------------------------------------------

    @classmethod
    def start(cls, program: Program, start: Start, now_ms: int, limits: Limits) -> tuple[Execution, Draft]:
        """A new execution and the draft of its first event. Append it after position 0."""
        info = ExecutionInfo(
            id=start.execution,
            tenant=start.tenant,
            workflow=program.id,
            version=program.version,
            started_at=rfc3339(now_ms),
            metadata=start.metadata,
            context=start.context,
        )
        execution = cls(program, program.begin(start.input, start.variables, info), limits)
        execution._absorb()
        data: dict[str, Any] = {
            "version": program.version,
            "definition_hash": program.hash,
            "start_hash": start.start_hash,
            "lease": start.lease,
            "input": start.input if start.stored_input is None else start.stored_input,
            "next": execution._choose([], program.max_parallel),
            "progress_percentage": 0,
        }
        for key in ("variables", "metadata", "context"):
            if value := getattr(start, key):
                data[key] = value
        return execution, Draft(ev.STARTED, data, now_ms)

    @classmethod
    def rebuild(
        cls,
        program: Program,
        state: State,
        limits: Limits,
        resolve: Callable[[Any], Any] = _same,
    ) -> Execution:
        """The execution that ``state`` describes.

        Args:
            program: the very definition the execution was started with (by hash).
            state: a folded state; owned by the execution from now on.
            limits: what an execution may grow to.
            resolve: turns a stored value into the value itself (references to large payloads).

        Raises Diverged where the program never asks for a slot that is settled.
        """
        if program.hash != state.definition_hash:
            raise Diverged(
                f"{state.tenant}.{state.execution} runs definition {state.definition_hash[:12]}, "
                f"not {program.hash[:12]}: {state.workflow} {state.version} was changed in place"
            )
        info = ExecutionInfo(
            id=state.execution,
            tenant=state.tenant,
            workflow=state.workflow,
            version=state.version,
            started_at=state.created_at,
            metadata=state.metadata,
            context=state.context,
        )
        run = program.begin(resolve(state.input), state.variables, info)
        execution = cls(program, run, limits)
        execution.state = state
        execution._absorb()
        for slot_id in state.order:
            slot = state.slots[slot_id]
            if slot_id not in execution.wants:
                raise Diverged(
                    f"{state.execution}: slot {slot_id} is settled, but the program never asks for it"
                )
            execution._tell(slot_id, slot.status, resolve(slot.output), slot.error)
        execution._ready = [s for s in execution._ready if s not in state.slots]
        execution._derived = [s for s in execution._derived if s not in state.slots]
        for undo in state.undo:
            execution._want_undo(undo)
        return execution

    # -- what happened -----------------------------------------------------------------------

    def recovered(self, worker: str, reason: str, now_ms: int) -> Draft:
        """Another worker drove this execution and is gone: take over, under the next epoch."""
        slots = self.state.slots
        now = rfc3339(now_ms)
        lost = [slot_id for slot_id in self.state.open if slots[slot_id].retry_at <= now]
        data = {"previous_worker": self.state.worker, "reason": reason, "lost": lost}
        return Draft(ev.RECOVERED, data, now_ms)

    def attempted(self, attempt: Attempt, now_ms: int) -> Draft:
        """An attempt at an open slot has ended, well or badly."""
        if attempt.error is not None:
            return self._failed(attempt, attempt.error, now_ms)
        slot = self.state.slots[attempt.slot]
        data = self._attempt_data(slot, attempt.started_ms, now_ms)
        data["output"] = attempt.stored
        if self.state.status == "COMPENSATING":
            data["undone"] = [*self.state.undone, slot.step]
            del self.wants[slot.id]
            data["next"] = saga.next_undo(self.state, after=slot.id)
            return Draft(ev.STEP_COMPENSATED, data, now_ms)
        self._tell(slot.id, "completed", attempt.output, None)
        data["next"] = self._next(without=slot.id)
        data["progress_percentage"] = self._run.progress().percentage
        return Draft(ev.STEP_COMPLETED, data, now_ms)

    def _failed(self, attempt: Attempt, error: Failure, now_ms: int) -> Draft:
        slot = self.state.slots[attempt.slot]
        want = self.wants[slot.id]
        policy = want.policy
        failures = slot.failures + 1
        data = self._attempt_data(slot, attempt.started_ms, now_ms)
        retry_at = now_ms + backoff_ms(policy.retry, failures, f"{self.state.execution}:{slot.id}")
        deadline = verdict.deadline_ms(slot, policy)
        too_late = deadline is not None and retry_at >= deadline
        if (
            not may_retry(policy.retry, error, failures)
            or policy.at_most_once
            or (self.state.failing and self.state.status == "RUNNING")
            or too_late
        ):
            if too_late and error.retryable:
                error = verdict.deadline_exceeded(policy, error)
            return self._give_up(want, error, data, now_ms)
        data |= {"error": error, "final": False, "retry_at": rfc3339(retry_at)}
        data["next"] = list(self.state.open)
        data["progress_percentage"] = self._run.progress().percentage
        return Draft(ev.STEP_FAILED, data, now_ms)

    def _give_up(self, want: Want, error: Failure, data: dict[str, Any], now_ms: int) -> Draft:
        """The final failure of a slot: what follows is the want's ``on_error``."""
        undoing = self.state.status == "COMPENSATING"
        on_error = want.policy.on_error
        data |= {"error": error, "final": True, "on_error": on_error, "compensation": undoing}
        if undoing:
            data["next"] = []
        elif on_error == "continue":
            self._tell(want.slot, "failed", None, error)
            data["next"] = self._next(without=want.slot)
        else:
            data["next"] = [slot_id for slot_id in self.state.open if slot_id != want.slot]
        data["progress_percentage"] = self._run.progress().percentage
        return Draft(ev.STEP_FAILED, data, now_ms)

    # -- what follows from the state alone ---------------------------------------------------

    def follow_up(self, now_ms: int, busy: Collection[str] = ()) -> Draft | None:
        """The next draft that the state itself asks for, or None when it is time to wait.

        ``busy`` are the slots at which an attempt is being made right now.
        """
        state = self.state
        if is_terminal(state.status):
            return None
        if (error := verdict.over_limit(state, self.limits)) is not None:
            return saga.failed(state, error, "", self._compensable(), now_ms)
        if (hopeless := self._hopeless(now_ms)) is not None:
            return hopeless
        if state.status == "COMPENSATING":
            return saga.wind_up(state, now_ms)
        if state.failing:
            return self._wind_down(now_ms, busy)
        if self._derived:
            return self._derive(self.wants[self._derived.pop(0)], now_ms)
        if isinstance(self._outcome, Finished) and not state.open:
            data = {"output": self._outcome.output, "progress_percentage": 100}
            return Draft(ev.COMPLETED, with_duration(state, data, now_ms), now_ms)
        if isinstance(self._outcome, Failed) and not state.open:
            undo = self._compensable()
            if undo:
                return saga.begin(self._outcome.error, "", undo, now_ms)
            return saga.failed(state, self._outcome.error, "", [], now_ms)
        return None

    def _derive(self, want: Want, now_ms: int) -> Draft:
        """Record a decision, or the failure of a step whose inputs can't be computed."""
        if want.fault is not None:
            data: dict[str, Any] = {"step": want.step, "slot": want.slot, "uses": want.uses, "attempt": 1}
            return self._give_up(want, want.fault, data, now_ms)
        decision = want.decision or {}
        self._tell(want.slot, "decided", decision, None)
        data = {"step": want.step, "slot": want.slot, "decision": decision, "next": self._next()}
        data["progress_percentage"] = self._run.progress().percentage
        return Draft(ev.DECIDED, data, now_ms)

    def _hopeless(self, now_ms: int) -> Draft | None:
        """Give up an open slot that may not, or should not, be attempted once more."""
        if self.state.epoch == 1 and self.state.status != "COMPENSATING":
            return None
        for slot_id in self.state.open:
            slot = self.state.slots[slot_id]
            want = self.wants[slot_id]
            error = verdict.hopeless(slot, want, self.limits)
            if error is None:
                continue
            data = {"step": slot.step, "slot": slot_id, "uses": want.uses, "attempt": slot.attempt}
            return self._give_up(want, error, data, now_ms)
        return None

    def _wind_down(self, now_ms: int, busy: Collection[str]) -> Draft | None:
        """A step has given up: fail at once, or let what runs end and then compensate."""
        state = self.state
        error = state.error or Failure(type="Unknown", message="no reason was recorded")
        if state.on_error != "compensate":
            return saga.failed(state, error, state.failed_step, self._compensable(), now_ms)
        if any(state.slots[slot_id].in_flight or slot_id in busy for slot_id in state.open):
            return None
        return saga.begin(error, state.failed_step, self._compensable(), now_ms)

    def _compensable(self) -> list[str]:
        """The undo slots of all completed steps that have one, last completed first."""
        undo: list[str] = []
        for slot_id in reversed(self.state.order):
            if self.state.slots[slot_id].status == "completed":
                want = self._run.undo(slot_id)
                if want is not None:
                    undo.append(want.slot)
        return undo

    # -- recording ---------------------------------------------------------------------------

    def record(self, event: Event, position: int) -> list[str]:
        """Fold a stored event; the slots that are to be run from now on are returned."""
        known = self.state.slots if self.state is not None else {}
        opened = [slot_id for slot_id in event.data.get("next", ()) if slot_id not in known]
        self.state = fold(self.state, event)
        self.state.position = position
        if event.event == ev.COMPENSATING:
            for undo in self.state.undo:
                self._want_undo(undo)
        for slot_id in opened:
            if slot_id in self._ready:
                self._ready.remove(slot_id)
        return opened

    def timeout_ms(self, slot_id: str, now_ms: int) -> int | None:
        """How long the next attempt at a slot may take: its timeout, or what its deadline leaves."""
        policy = self.wants[slot_id].policy
        deadline = verdict.deadline_ms(self.state.slots[slot_id], policy)
        if deadline is None:
            return policy.timeout_ms
        left = max(1, deadline - now_ms)
        return left if policy.timeout_ms is None else min(left, policy.timeout_ms)

    def run_view(self) -> Run:
        """The run, for status and pictures. Read it; don't settle anything in it."""
        return self._run

    # -- the program's side ------------------------------------------------------------------

    def _tell(self, slot_id: str, status: Any, value: Any, error: Failure | None) -> None:
        del self.wants[slot_id]
        self._run.settle(Settled(slot=slot_id, status=status, value=value, error=error))
        self._absorb()

    def _absorb(self) -> None:
        outcome = self._outcome = self._run.poll()
        if not isinstance(outcome, Waiting):
            return
        for want in outcome.wants:
            self.wants[want.slot] = want
            if want.kind == "decision" or want.fault is not None:
                self._derived.append(want.slot)
            else:
                self._ready.append(want.slot)

    def _want_undo(self, undo: str) -> None:
        if undo in self.wants or self.state.slots.get(undo, _UNSEEN).status != "open":
            return
        want = self._run.undo(undo.removesuffix(":undo"))
        if want is None:
            raise Diverged(f"{self.state.execution}: {undo} is to be undone, but the definition has no way")
        self.wants[undo] = want

    def _next(self, without: str = "") -> list[str]:
        running = [slot_id for slot_id in self.state.open if slot_id != without]
        if self.state.failing:
            return running
        return self._choose(running, self.program.max_parallel)

    def _choose(self, running: list[str], max_parallel: int) -> list[str]:
        """``running`` and the ready slots that fit beside them, the most urgent first."""
        room = max_parallel - len(running)
        if room <= 0 or not self._ready:
            return running
        if len(self._ready) <= room:
            chosen = self._ready
        else:
            # sorted() is stable: equal priorities keep the program's order.
            chosen = sorted(self._ready, key=lambda slot_id: -self.wants[slot_id].policy.priority)[:room]
        return [*running, *chosen]

    def _attempt_data(self, slot: Slot, started_ms: int, now_ms: int) -> dict[str, Any]:
        return {
            "step": slot.step,
            "slot": slot.id,
            "uses": self.wants[slot.id].uses,
            "attempt": slot.attempt,
            "started_at": rfc3339(started_ms),
            "finished_at": rfc3339(now_ms),
            "duration_ms": now_ms - started_ms,
        }


_UNSEEN = Slot(id="")
