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

from collections.abc import Callable, Collection, Generator, Mapping
from typing import Any

from wpa.kernel import resting, saga, verdict
from wpa.kernel.draft import Draft
from wpa.kernel.ending import Ending
from wpa.kernel.fold import advance
from wpa.kernel.mail import Found, Mail
from wpa.kernel.match import Diverged, check_pinned
from wpa.kernel.opening import held, open_into, room_beside
from wpa.kernel.outcome import conclude, start_over
from wpa.kernel.program import Continued, Failed, Outcome, Program, Run, Waiting, Want
from wpa.kernel.replay import at_once, replay, replay_slot
from wpa.kernel.script import Script
from wpa.kernel.telling import Attempt, Start, attempt_data, first_data, info_at_start, info_of, takeover_data
from wpa.model import events as ev
from wpa.model.events import Event, Failure
from wpa.model.limits import Limits
from wpa.model.state import Slot, State, is_terminal
from wpa.model.times import parse_ms, rfc3339

__all__ = ["Attempt", "Diverged", "Draft", "Execution", "Start"]


def _same(value: Any) -> Any:
    return value


class Execution:
    """See the module's theory of operation. Not thread-safe; owns its state."""

    def __init__(
        self,
        program: Program,
        run: Run,
        limits: Limits,
        resolve: Callable[[Any], Any] = _same,
        slots: Mapping[str, Slot] | None = None,
    ) -> None:
        self.program = program
        self.limits = limits
        self.state: State = None  # type: ignore[assignment]  # set by the first record, or by rebuild
        self._script = Script(run, slots or {})
        self._following: Script | None = None
        """The next run's script, between the decision to continue as new and its record."""
        self._mail = Mail()
        self._resolve = resolve
        self._ending = Ending(program.max_parallel)
        self._retries = False
        """Whether a slot may be open that waits for its next attempt: most executions have none, ever."""

    @property
    def wants(self) -> dict[str, Want]:
        """Everything wanted and not settled, undo slots included, by slot."""
        return self._script.wants

    # -- beginnings --------------------------------------------------------------------------

    @classmethod
    def start(
        cls,
        program: Program,
        start: Start,
        now_ms: int,
        limits: Limits,
        resolve: Callable[[Any], Any] = _same,
    ) -> tuple[Execution, Draft]:
        """A new execution and the draft of its first event. Append it after position 0."""
        begins_ms = max(now_ms, start.start_at_ms)
        run = program.begin(start.input, start.variables, info_at_start(program, start, begins_ms))
        execution = cls(program, run, limits, resolve, {slot.id: slot for slot in start.taken.settled})
        script, delayed = execution._script, begins_ms > now_ms
        if not delayed or start.taken.settled:  # what it takes over has to fit at once
            script.begin()
        for slot in start.taken.settled:
            replay_slot(program, script, execution.state, slot, resolve)
        data = first_data(program, start, begins_ms)
        if delayed:
            data["start_at"] = rfc3339(begins_ms)
        open_into(data, script, [], None if delayed else program.max_parallel, start.execution, now_ms)
        data["progress_percentage"] = execution._percentage() if start.taken.settled else 0
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
            program: the definition the execution was started with (by hash, where it is pinned).
            state: a folded state; owned by the execution from now on.
            limits: what an execution may grow to.
            resolve: turns a stored value into the value itself (references to large payloads).

        Raises Diverged where the program doesn't ask for what is recorded.
        """
        return at_once(cls.rebuilding(program, state, limits, resolve))

    @classmethod
    def rebuilding(
        cls, program: Program, state: State, limits: Limits, resolve: Callable[[Any], Any] = _same
    ) -> Generator[None, None, Execution]:
        """The same, a few of the slots at a time; what it returns in the end is the execution."""
        check_pinned(program, state)
        run = program.begin(resolve(state.input), state.variables, info_of(state))
        execution = cls(program, run, limits, resolve, state.slots)
        execution.state = state
        if state.begun:
            execution._script.begin()
        yield from replay(program, execution._script, state, resolve)
        execution._retries = any(state.slots[slot_id].retry_at for slot_id in state.open)
        saga.want_undos(state, execution._script)
        execution._mail.look_again(state, execution._script.wants)
        return execution

    def renewing(self, state: State) -> Generator[None, None, None]:
        """Be as :meth:`rebuild` makes it from ``state``: forget what was decided and is not recorded.

        A few of the slots at a time, as :meth:`rebuilding`; until all are gone through, it is as it was.
        """
        fresh = yield from self.rebuilding(self.program, state, self.limits, self._resolve)
        vars(self).update(vars(fresh))

    # -- what happened -----------------------------------------------------------------------

    def recovered(self, worker: str, reason: str, now_ms: int) -> Draft:
        """Another worker drove this execution and is gone: take over, under the next epoch."""
        return Draft(ev.RECOVERED, takeover_data(self.state, self.wants, reason, now_ms), now_ms)

    def attempted(self, attempt: Attempt, now_ms: int, told: dict[str, Any] | None = None) -> Draft:
        """An attempt at an open slot has ended, well or badly. ``told`` is added to what is recorded."""
        slot = self.state.slots[attempt.slot]
        data = attempt_data(slot, self._script.wants[slot.id], attempt.started_ms, now_ms)
        if told:
            data |= told
        if attempt.error is not None:
            return self._failed(slot, attempt.error, data, now_ms)
        data["output"] = attempt.stored
        if self.state.status == "COMPENSATING":
            data["undone"] = saga.undone_with(self.state, slot.step)
            del self.wants[slot.id]
            data["next"] = saga.next_undo(self.state, after=slot.id)
            saga.waits_into(data, self.state, self._script.run, now_ms)
            return Draft(ev.STEP_COMPENSATED, data, now_ms)
        return self._settled(slot, attempt.output, data, now_ms)

    def _settled(self, slot: Slot, value: Any, data: dict[str, Any], now_ms: int) -> Draft:
        self._script.tell(slot.id, "completed", value, None, now_ms)
        self._next_into(data, now_ms, without=slot.id)
        data["progress_percentage"] = self._percentage()
        return Draft(ev.STEP_COMPLETED, data, now_ms)

    def _failed(self, slot: Slot, error: Failure, data: dict[str, Any], now_ms: int) -> Draft:
        want, key = self.wants[slot.id], f"{self.state.execution}:{slot.id}"
        following = verdict.next_attempt(slot, want.policy, error, now_ms, key)
        if isinstance(following, Failure):
            return self._give_up(want, following, data, now_ms)
        if self.fails:
            return self._give_up(want, error, data, now_ms)
        data |= {"error": error, "final": False, "retry_at": rfc3339(following)}
        data["next"] = list(self.state.open)
        data["progress_percentage"] = self._percentage()
        return Draft(ev.STEP_FAILED, data, now_ms)

    def _give_up(self, want: Want, error: Failure, data: dict[str, Any], now_ms: int) -> Draft:
        """The final failure of a slot: what follows is the want's ``on_error``."""
        undoing = self.state.status == "COMPENSATING"
        on_error = want.policy.on_error
        data |= {"error": error, "final": True, "on_error": on_error, "compensation": undoing}
        if undoing:
            data["next"] = []
        elif on_error == "continue":
            self._script.tell(want.slot, "failed", None, error, now_ms)
            self._next_into(data, now_ms, without=want.slot)
        else:
            data["next"] = [slot_id for slot_id in self.state.open if slot_id != want.slot]
        data["progress_percentage"] = self._percentage()
        return Draft(ev.STEP_FAILED, data, now_ms)

    # -- what follows from the state alone ---------------------------------------------------

    def follow_up(self, now_ms: int, busy: Collection[str] = ()) -> Draft | None:
        """The next draft that the state itself asks for, or None when it is time to wait.

        ``busy`` are the slots at which an attempt is being made right now.
        """
        # Asked after each event, and nearly always in vain: what is rare is only looked at where it may be.
        state, script = self.state, self._script
        status = state.status
        if is_terminal(status):
            return None
        # What is paused can't fail: it is over the limit still when it is resumed.
        if status != "PAUSED" and (error := verdict.over_limit(state, self.limits)) is not None:
            return saga.failed(state, error, "", saga.standing(state, script.run), now_ms)
        undoing = status == "COMPENSATING"
        if (state.lost or undoing) and (hopeless := self._hopeless(now_ms)) is not None:
            return hopeless
        if undoing:
            return self._settle_wait(now_ms) or saga.wind_up(state, now_ms) or self._go_on(now_ms)
        if status == "PAUSED":
            return None
        if self.fails or self._ending.begins(state, script, now_ms):
            return self._wind_down(now_ms, busy)
        if state.start_at:
            return self._begin(now_ms) if now_ms >= parse_ms(state.start_at) else None
        if self._mail.waiting and (draft := self._settle_wait(now_ms)) is not None:
            return draft
        if script.derived:
            return self._derive(script.wants[script.derived.pop(0)], now_ms)
        return self._onward(script.outcome, now_ms)

    def _wind_down(self, now_ms: int, busy: Collection[str]) -> Draft | None:
        """On the way to an early end. First, what others have done: it is to be undone, or at least named."""
        state, script = self.state, self._script
        ends = self._ending.begins(state, script, now_ms)
        if (found := self._mail.take_work(state, script.wants, now_ms, done=ends)) is not None:
            return self._settle(found, now_ms)
        if (draft := self._ending.follow_up(state, script, now_ms)) is not None:
            return draft
        if isinstance(script.outcome, Failed):
            return conclude(state, script, script.outcome, busy, now_ms)
        return saga.wind_down(state, script.run, busy, now_ms)

    def ending(self, now_ms: int) -> Failure | None:
        """Why the execution is to end though nothing of it failed: a cancel, or its deadline. What runs
        has to be stopped before :meth:`follow_up` is asked again.

        None for one that is ending already, while its program cleans up, and in a pause: to undo something
        would be to begin something. A deadline that passes in a pause takes effect when the pause ends.
        """
        return self._ending.due(self.state, self._script, now_ms)

    def is_to_end(self, now_ms: int) -> bool:
        """Whether a cancel, or its deadline, is about to end it, or to have its program clean up."""
        return self._ending.begins(self.state, self._script, now_ms)

    @property
    def fails(self) -> bool:
        """Whether it can't succeed any more: what runs may end, and nothing begins, nor is tried again."""
        state = self.state
        return state.status == "RUNNING" and (bool(state.failing) or isinstance(self._script.outcome, Failed))

    @property
    def failure(self) -> Failure | None:
        """What its program failed with, while it has not ended: what runs may have to be undone, and ends."""
        outcome = self._script.outcome
        return outcome.error if isinstance(outcome, Failed) and not is_terminal(self.state.status) else None

    def _onward(self, outcome: Outcome, now_ms: int) -> Draft | None:
        """What follows from how far the program itself is."""
        if isinstance(outcome, Continued):
            self._following, draft = start_over(self.program, self.state, outcome, now_ms)
            return draft
        if isinstance(outcome, Waiting):
            return self._go_on(now_ms)
        return conclude(self.state, self._script, outcome, (), now_ms) or self._go_on(now_ms)

    def _begin(self, now_ms: int) -> Draft:
        """A delayed start: only now is the program asked what it wants."""
        self._script.begin()
        data: dict[str, Any] = {"reason": "go on"}
        self._next_into(data, now_ms)
        return Draft(ev.RESUMED, data, now_ms)

    def _go_on(self, now_ms: int) -> Draft | None:
        """Open what nothing else opens: after a pause, or for another attempt elsewhere."""
        state, script = self.state, self._script
        if not (script.ready or self._mail.waiting or script.dropping):
            return None
        again = self._mail.due_again(state, now_ms)
        undoing = state.status == "COMPENSATING"
        openable = not undoing and (script.dropping or script.can_open(self._room(state.open)))
        if not again and not openable:
            return None
        data: dict[str, Any] = {"reason": "go on"}
        if again:
            data["retry"] = again
        if undoing:
            data["next"] = list(state.open)
        else:
            self._next_into(data, now_ms)
        return Draft(ev.RESUMED, data, now_ms)

    def _derive(self, want: Want, now_ms: int) -> Draft:
        """Record a decision, or the failure of a step whose inputs can't be computed."""
        if want.fault is not None:
            data: dict[str, Any] = {"step": want.step, "slot": want.slot, "uses": want.uses, "attempt": 1}
            return self._give_up(want, want.fault, data, now_ms)
        decision = want.decision or {}
        self._script.tell(want.slot, "decided", decision, None, now_ms)
        data = {"step": want.step, "slot": want.slot, "decision": decision}
        self._next_into(data, now_ms)
        data["progress_percentage"] = self._percentage()
        return Draft(ev.DECIDED, data, now_ms)

    def _settle_wait(self, now_ms: int) -> Draft | None:
        """Settle an open wait for which something came, or whose time is over."""
        found = self._mail.take(self.state, self.wants, now_ms) if self._mail.waiting else None
        return None if found is None else self._settle(found, now_ms)

    def _settle(self, found: Found, now_ms: int) -> Draft:
        """Record what a wait got."""
        slot = self.state.slots[found.slot]
        if found.escalated is not None:
            data: dict[str, Any] = {"step": slot.step, "slot": slot.id, **found.escalated}
            return Draft(ev.ESCALATED, data, now_ms)
        told = {**found.told, "signals": list(found.signals)} if found.signals else found.told
        started_ms = found.started_ms or parse_ms(slot.opened_at)
        return self.attempted(
            Attempt(
                slot=slot.id,
                started_ms=started_ms,
                output=found.output if found.default else self._resolve(found.output),
                stored=found.output,
                error=found.error,
            ),
            now_ms,
            told,
        )

    def _hopeless(self, now_ms: int) -> Draft | None:
        """Give up an open slot that may not, or should not, be attempted once more."""
        found = verdict.first_hopeless(self.state, self.wants, self.limits)
        if found is None:
            return None
        slot, want, error = found
        data = {"step": slot.step, "slot": slot.id, "uses": want.uses, "attempt": slot.attempt}
        return self._give_up(want, error, data, now_ms)

    # -- resting -----------------------------------------------------------------------------

    def wake_ms(self, taken: Collection[str] = ()) -> int | None:
        """When the execution has to be looked at again though nobody says anything; None: never.

        ``taken`` are the slots that somebody takes care of already.
        """
        state, fails = self.state, self.fails
        ends = not fails and (state.cleanup is None or not self._script.undoes_any(state.open))
        due_ms = self._mail.due_ms(state, self._script.wants, only_work=fails)
        retrying = state.open if self._retries and not fails else ()
        return resting.wake_ms(state, retrying, due_ms, taken, ends=ends)

    def resting(self, now_ms: int) -> Draft:
        """Come to rest: nobody drives the execution until something comes, or its alarm rings."""
        return resting.begin(self.state, self.wake_ms(), now_ms)

    # -- recording ---------------------------------------------------------------------------

    def record(self, event: Event, position: int) -> list[str]:
        """Fold a stored event; the slots that are open from now on and weren't are returned."""
        name, data, script = event.event, event.data, self._script
        if self._following is not None and name == ev.CONTINUED:
            script, self._following = self._following, None
            self._script, self._mail = script, Mail()
        self.state, opened = advance(self.state, event)
        self.state.position = position
        if name == ev.STEP_FAILED:
            self._retries = True
        elif name == ev.COMPENSATING:
            saga.want_undos(self.state, script)
        for slot_id in opened:
            script.opened(slot_id)
        if recorded := data.get("recorded"):
            del script.recorded[: len(recorded)]
        if dropped := data.get("dropped"):
            script.dropping = [slot_id for slot_id in script.dropping if slot_id not in dropped]
        if self._mail.waiting or name == ev.SIGNALLED or "waits" in data or "reopen" in data:
            self._mail.look_again(self.state, script.wants)
        return opened

    def timeout_ms(self, slot_id: str, now_ms: int) -> int | None:
        """How long the next attempt at a slot may take: its timeout, or what its deadline leaves."""
        return verdict.timeout_ms(self.state.slots[slot_id], self._script.wants[slot_id].policy, now_ms)

    def stops(self, slot_id: str) -> bool:
        """Whether a cancel would, for sure, end an attempt at a slot."""
        cleaner = self._script.cleaner
        return cleaner is None or (self.state.cleanup is None and cleaner.lets_go(slot_id))

    def run_view(self) -> Run:
        """The run, for status and pictures. Read it; don't settle anything in it."""
        return self._script.run

    # -- opening -----------------------------------------------------------------------------

    def _room(self, running: list[str]) -> int:
        return room_beside(self.state, running, self.program.max_parallel, self._mail.waiting)

    def _next_into(self, data: dict[str, Any], now_ms: int, without: str = "") -> None:
        """Into ``data``: what is open after it, and what the program dropped or came by."""
        state = self.state
        running = state.open.copy()
        if without in running:
            running.remove(without)
        still = held(state) or self.fails or self._ending.begins(state, self._script, now_ms)
        room = None if still else self._room(running)
        open_into(data, self._script, running, room, state.key, now_ms)

    def _percentage(self) -> int:
        return self._script.run.progress().percentage
