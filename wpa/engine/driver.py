"""The driver: one task message in hand, one execution driven as far as it goes, one ack.

The order of actions is the whole point; each line of the commit protocol has its place here:

1. the task is leased (the unacknowledged message) and its lease is kept alive by the heartbeat;
2. each transition is one append, by compare-and-set (:mod:`wpa.engine.commit`);
3. nothing is run before the event that opened it is stored;
4. what is to run is derived from the folded state, so a takeover runs the same under the same keys;
5. at rest: ``workflow_waiting`` is appended, then the alarm is set and the snapshot written, and only then
   is the task acked;
6. a driver that meets a newer epoch stops at once: no append, no ack, no nak.

Others may append while it drives: signals, pauses, cancels (:mod:`wpa.engine.asks`). The next append then
loses its compare-and-set; the driver folds what came in between and decides again.
"""

from __future__ import annotations

import logging
import secrets
from typing import Final

from wpa.engine.asks import decide, find, interrupts
from wpa.engine.attempts import Attempts
from wpa.engine.commit import Lost, commit
from wpa.engine.door import Request, conflict
from wpa.engine.effects import Effects
from wpa.engine.loading import Loaded, Values, load, revive
from wpa.engine.services import Services
from wpa.engine.snapshots import Keeper
from wpa.errors import Conflict, NotFound, Superseded, TaskRejected, Unavailable
from wpa.kernel.draft import Draft, seal
from wpa.kernel.execution import Attempt, Diverged, Execution, Start
from wpa.kernel.fold import fold
from wpa.kernel.fork import settled_before
from wpa.kernel.program import Program
from wpa.kernel.requests import blocked
from wpa.model import events as ev
from wpa.model.codec import decode_event, encode_event
from wpa.model.events import Event, Failure
from wpa.model.state import Slot, State, decode_state, encode_state, is_terminal
from wpa.model.tasks import Task, TimerDue
from wpa.model.times import parse_ms, rfc3339
from wpa.ports.journal import Stored

__all__ = ["Driver"]

log = logging.getLogger("wpa.engine")

NAP_MS: Final = 2_000
"""What is due within this time is waited for here; for all else the execution comes to rest."""
BLOCKED_RETRY_MS: Final = 30_000
EARLY_TRIES: Final = 6
"""A request may overtake the start it belongs to: so often it is handed back before it is rejected."""


class TooEarly(Conflict):
    """A request for an execution that may be about to start."""


class Driver:
    """Drives one execution. Cancel its task to make it stop without a trace (no ack, no nak)."""

    def __init__(self, services: Services, request: Request) -> None:
        self._services = services
        self._request = request
        self._keeper = Keeper(services)
        self._effects = Effects(services)
        self._attempts = Attempts(services)
        self._execution: Execution = None  # type: ignore[assignment]  # set before anything is driven
        self._values = Values(services.payloads)
        self._todo: list[str] = []
        """Open steps for which an attempt is to be begun."""
        self.epoch = 1

    async def drive(self) -> None:
        """Drive until the execution is at rest, and ack.

        Raises Superseded when another worker took over, TaskRejected when the task may not run, and
        PlatformError when the turn has to be tried again by whoever gets the task next.
        """
        try:
            if await self._begin():
                await self._advance()
            self._request.lease.ack()
        finally:
            await self._attempts.stop()

    def news(self, *, interrupt: bool) -> None:
        """Somebody else has appended to the journal. ``interrupt``: look at it even in mid-step."""
        self._attempts.wake(interrupt=interrupt)

    # -- beginnings --------------------------------------------------------------------------

    async def _begin(self) -> bool:
        """Start the execution, take it over, or record what is asked of it. False: nothing to drive."""
        if isinstance(self._request.task, Task):
            return await self._begin_start(self._request.task)
        return await self._begin_ask()

    async def _begin_start(self, task: Task) -> bool:
        request = self._request
        if request.lease.delivered == 1:
            try:
                await self._start(task)
                return True
            except Lost:
                pass  # it exists: a duplicate, or a redelivery that the server forgot to count
        loaded = await load(self._services.ports, request.tenant, request.execution)
        if loaded is None:
            await self._start(task)
            return True
        self._keeper.adopt(loaded)
        if loaded.state.lease == request.lease.identity:
            return await self._take_over(loaded)
        self._answer_duplicate(loaded.state)
        await self._heal(loaded.state)
        return False

    async def _start(self, task: Task) -> None:
        services, request = self._services, self._request
        program = await services.library.program(request.tenant, request.workflow, task.version)
        problems = program.check_input(task.payload.input_data)
        if problems:
            raise TaskRejected(
                "invalid_input",
                f"the input does not fit the input schema of {program.id} {program.version}: {problems[0]}",
                problems,
            )
        services.payloads.check_inline("$.payload.variables", task.payload.variables)
        services.payloads.check_inline("$.payload.execution_context", task.payload.execution_context)
        stored = await services.payloads.store(request.tenant, request.execution, task.payload.input_data)
        settled = await self._forked(task)
        now = services.clock.now_ms()
        start = Start(
            tenant=request.tenant,
            execution=request.execution,
            start_hash=request.start_hash,
            input=task.payload.input_data,
            stored_input=stored,
            variables=task.payload.variables,
            metadata=request.metadata,
            context=task.payload.execution_context,
            lease=request.lease.identity,
            seed="" if program.pinned else secrets.token_hex(16),
            start_at_ms=parse_ms(task.start_at) if task.start_at else 0,
            parent=task.parent,
            forked_from=task.fork.execution_id if task.fork else "",
            settled=settled,
        )
        try:
            execution, draft = Execution.start(program, start, now, services.limits, self._values)
        except Diverged as error:
            raise TaskRejected("does_not_fit", f"{request.execution} can't be a rerun: {error}") from None
        event = self._first_event(program, draft)
        position = await commit(services.ports.journal, event, 0)
        self._execution = execution
        await self._react(event, execution.record(event, position))
        request.answer({"ok": True, "execution_id": request.execution, "workflow_id": program.id,
                        "version": program.version, "duplicate": False})  # fmt: skip

    async def _forked(self, task: Task) -> tuple[Slot, ...]:
        """What a rerun takes over from the execution that it is a rerun of."""
        if task.fork is None:
            return ()
        loaded = await find(self._services, self._request.tenant, task.fork.execution_id)
        settled = settled_before(loaded.state, task.fork.step)
        for slot in settled:
            await self._values.fetch(slot.output)
        return settled

    def _first_event(self, program: Program, draft: Draft) -> Event:
        services, request = self._services, self._request
        return Event(
            id=services.next_id(),
            seq=1,
            event=draft.event,
            tenant_id=request.tenant,
            workflow_id=program.id,
            execution_id=request.execution,
            timestamp=rfc3339(draft.at_ms),
            task_id=request.task.task_id,
            global_task_id=request.task.global_task_id,
            worker=services.worker,
            epoch=self.epoch,
            traceparent=request.traceparent,
            data=draft.data,
        )

    def _answer_duplicate(self, state: State) -> None:
        """Another message asked for this execution before: the same again, or a conflict."""
        request = self._request
        if state.start_hash != request.start_hash:
            raise conflict(state)
        request.answer({"ok": True, "execution_id": state.execution, "workflow_id": state.workflow,
                        "version": state.version, "duplicate": True})  # fmt: skip

    async def _take_over(self, loaded: Loaded) -> bool:
        """The driver before us is gone: go on from the journal, under the next epoch."""
        services, state = self._services, loaded.state
        previous = state.worker
        try:
            program = await services.library.program(state.tenant, state.workflow, state.version)
            self._execution, self._values = await revive(program, state, services.limits, services.payloads)
        except (Diverged, NotFound) as error:
            return await self._block(state, error)
        self.epoch = state.epoch + 1
        reason = f"the task was delivered again ({self._request.lease.delivered})"
        await self._record(self._execution.recovered(services.worker, reason, services.clock.now_ms()))
        services.ports.live.nudge(previous, state.tenant, state.execution, self.epoch, "taken_over")
        log.info("took over %s.%s from %s, epoch %d", state.tenant, state.execution, previous, self.epoch)
        await self._resume_effects()
        return True

    async def _resume_effects(self) -> None:
        """Issue again whatever the driver before may not have come to."""
        state = self._execution.state
        self._todo = [slot_id for slot_id in state.open if state.slots[slot_id].kind == "step"]
        closed = [slot.id for slot in state.slots.values() if slot.status == "cancelled"]
        await self._effects.close_slots(state, closed)
        for slot_id in state.open:
            await self._effects.open_slot(self._execution, slot_id)

    async def _begin_ask(self) -> bool:
        """Record what is asked; drive on where the execution was at rest and has to go on."""
        services, request = self._services, self._request
        while True:
            loaded = await self._find()
            if loaded is None:
                return False
            self._keeper.adopt(loaded)
            state = loaded.state
            if state.lease == request.lease.identity:
                return await self._take_over(loaded)
            if isinstance(request.task, TimerDue) and await self._still_blocked(state):
                return False
            draft = await decide(services, state, request.task, request.lease.identity)
            if draft is None:
                request.answer({"ok": True, "execution_id": state.execution, "duplicate": True})
                await self._heal(state)
                return False
            driving = "lease" in draft.data
            before, self.epoch = state.worker, state.epoch + driving
            event = seal(draft, state, id=services.next_id(), worker=services.worker, epoch=self.epoch)
            try:
                position = await commit(services.ports.journal, event, state.position)
            except Lost:
                continue  # decide again, on what is there now
            request.answer({"ok": True, "execution_id": state.execution, "duplicate": False})
            # As it is stored: what is told to the program must be what a later load will tell it.
            state = fold(state, decode_event(encode_event(event)))
            state.position = position
            if driving:
                return await self._pick_up(state, reopened="reopen" in draft.data)
            if is_terminal(state.status):
                await self._finish(state)
            reason = "cancel" if interrupts(request.task) else "news"
            services.ports.live.nudge(before, state.tenant, state.execution, state.epoch, reason)
            return False

    async def _find(self) -> Loaded | None:
        """The execution that the request names; None for an alarm that outlived its execution."""
        request = self._request
        try:
            return await find(self._services, request.tenant, request.execution)
        except NotFound as error:
            if isinstance(request.task, TimerDue):
                return None
            if request.lease.delivered <= EARLY_TRIES:
                raise TooEarly(error.message) from None
            raise

    async def _pick_up(self, state: State, *, reopened: bool) -> bool:
        """Become the driver of an execution that was at rest. The event that says so is folded."""
        services = self._services
        try:
            program = await services.library.program(state.tenant, state.workflow, state.version)
            self._execution, self._values = await revive(program, state, services.limits, services.payloads)
        except (Diverged, NotFound) as error:
            return await self._block(state, error)
        self._todo = [slot_id for slot_id in state.open if state.slots[slot_id].kind == "step"]
        if reopened:
            await self._resume_effects()
        return True

    # -- blocked -----------------------------------------------------------------------------

    async def _block(self, state: State, error: Diverged | NotFound) -> bool:
        """The definition can't go on with what is recorded: say so, and look again later."""
        services = self._services
        kind = "NonDeterminism" if isinstance(error, Diverged) else error.code
        log.error("%s.%s is blocked: %s", state.tenant, state.execution, error)
        now = services.clock.now_ms()
        draft = blocked(state, Failure(type=kind, message=str(error)), now, now + BLOCKED_RETRY_MS)
        event = seal(draft, state, id=services.next_id(), worker=services.worker, epoch=state.epoch + 1)
        position = await commit(services.ports.journal, event, state.position)
        state = fold(state, event)
        state.position = position
        await self._settle_down(state)
        return False

    async def _still_blocked(self, state: State) -> bool:
        """Whether a blocked execution can't go on yet. Nothing is recorded of trying in vain."""
        if state.blocked is None or not state.at_rest:
            return False
        services = self._services
        try:
            program = await services.library.program(state.tenant, state.workflow, state.version)
            copy = decode_state(encode_state(state))
            await revive(program, copy, services.limits, services.payloads)
        except (Diverged, NotFound):
            state.wake_at = rfc3339(services.clock.now_ms() + BLOCKED_RETRY_MS)
            await self._effects.set_alarm(state)
            return True
        return False

    # -- the dialogue with the kernel --------------------------------------------------------

    async def _advance(self) -> None:
        """Keep to the dialogue of :mod:`wpa.kernel.execution` until the execution rests or has ended."""
        execution, clock, attempts = self._execution, self._services.clock, self._attempts
        while True:
            if attempts.take_news():
                await self._catch_up()
            if attempts and execution.ending(clock.now_ms()) is not None:
                await attempts.stop()
            while draft := execution.follow_up(clock.now_ms(), attempts.busy):
                await self._record(draft)
            state = execution.state
            if is_terminal(state.status):
                await self._finish(state)
                return
            if state.failing and await attempts.stop_sleepers():
                continue  # what only waited for a retry is given up
            ready = self._take_todo(clock.now_ms())
            if not ready and not attempts and not self._due_soon():
                if await self._rest():
                    return
                continue
            attempt = await self._next_attempt(ready)
            if attempt is not None and attempt.slot in execution.state.open:
                await self._record(execution.attempted(attempt, clock.now_ms()))
            if self._keeper.due(execution.state):
                await self._keeper.keep(execution.state)

    def _take_todo(self, now_ms: int) -> list[str]:
        """The steps that may be attempted now; those whose retry is far away stay for later."""
        state = self._execution.state
        ready, later = [], []
        for slot_id in self._todo:
            slot = state.slots[slot_id]
            if slot.status != "open":
                continue  # given up in the meantime
            if slot.retry_at and (
                state.failing or state.status == "PAUSED" or parse_ms(slot.retry_at) - now_ms > NAP_MS
            ):
                later.append(slot_id)
            else:
                ready.append(slot_id)
        self._todo = later
        return ready

    def _due_soon(self) -> bool:
        wake = self._execution.wake_ms(self._attempts.slots)
        return wake is not None and wake - self._services.clock.now_ms() <= NAP_MS

    async def _next_attempt(self, ready: list[str]) -> Attempt | None:
        """Begin what is ready; the first attempt to end, or None where it is time to look around."""
        execution, attempts = self._execution, self._attempts
        if len(ready) == 1 and not attempts and len(execution.state.open) == 1:
            attempt = await attempts.directly(execution, ready[0])
            if attempt is None:
                self._todo.append(ready[0])
            return attempt
        for slot_id in ready:
            attempts.begin(execution, slot_id)
        wake = execution.wake_ms(attempts.slots)
        within = None if wake is None else max(0.0, (wake - self._services.clock.now_ms()) / 1000)
        return await attempts.next(within)

    async def _record(self, draft: Draft) -> bool:
        """Append a draft, fold it, and do what it asks for. False where it has to be decided again."""
        execution, services = self._execution, self._services
        state = execution.state
        if draft.event in (ev.COMPLETED, ev.CONTINUED):
            key = "output" if draft.event == ev.COMPLETED else "input"
            stored = await services.payloads.store(state.tenant, state.execution, draft.data[key])
            draft.data[key] = stored
        while True:
            event = seal(draft, state, id=services.next_id(), worker=services.worker, epoch=self.epoch)
            try:
                position = await commit(services.ports.journal, event, state.position)
                break
            except Lost as lost:
                await self._fold_in(lost.tail)
            rebased = execution.rebase(draft)
            if rebased is None:
                return False
            draft = rebased
        opened = execution.record(event, position)
        await self._react(event, opened)
        return True

    async def _react(self, event: Event, opened: list[str]) -> None:
        """Stop what is not wanted any more, and see to what is open now."""
        state, data = self._execution.state, event.data
        slots = state.slots
        if event.event == ev.COMPENSATING:
            await self._attempts.stop()
            self._todo = list(state.open)
            closed = [slot.id for slot in slots.values() if slot.status == "cancelled"]
            await self._effects.close_slots(state, closed)
            return
        if event.event == ev.CONTINUED:
            await self._attempts.stop()
            self._todo = []
        if dropped := data.get("dropped"):
            await self._attempts.stop(set(dropped))
            await self._effects.close_slots(state, [slot_id for slot_id in dropped if slot_id in slots])
        if event.event == ev.STEP_FAILED and not data["final"] and slots[data["slot"]].kind == "step":
            self._todo.append(data["slot"])
        if "waits" not in data and "retry" not in data:
            self._todo += opened
            return
        for slot_id in [*opened, *data.get("retry", ())]:
            if slots[slot_id].kind == "step":
                self._todo.append(slot_id)
            else:
                await self._effects.open_slot(self._execution, slot_id)

    # -- what others append ------------------------------------------------------------------

    async def _catch_up(self) -> None:
        """Fold what others have appended since."""
        state = self._execution.state
        try:
            tail = await self._services.ports.journal.read(state.tenant, state.execution, state.position)
        except Unavailable:
            return  # the next append will tell
        await self._fold_in(tail)

    async def _fold_in(self, tail: list[Stored]) -> None:
        """Fold what somebody else has asked. Raises Superseded where somebody else drives."""
        execution = self._execution
        for position, event in tail:
            state = execution.state
            name = f"{state.tenant}.{state.execution}"
            if event.epoch < self.epoch:
                # Older than our own epoch: what we had loaded was not all there was. Load again.
                raise Conflict(f"{name} was read from a replica that lagged behind")
            if event.epoch > self.epoch or event.event not in ev.ASKED:
                raise Superseded(f"{name}: {event.worker} drives it now, epoch {event.epoch}")
            if event.event == ev.SIGNALLED:
                payload = event.data["signal"].get("payload")
                await self._values.fetch(payload)
                if isinstance(payload, dict):
                    await self._values.fetch(payload.get("output"))
            execution.record(event, position)

    # -- rest and end ------------------------------------------------------------------------

    async def _rest(self) -> bool:
        """Come to rest: append it, set the alarm, write the snapshot. False where there is news."""
        execution = self._execution
        state = execution.state
        if not state.open and not state.start_at and state.status == "RUNNING":
            raise Diverged(f"{self._request.execution}: nothing runs, and nothing is to be run")
        before = state.wake_at
        if not await self._record(execution.resting(self._services.clock.now_ms())):
            return False
        await self._settle_down(execution.state, before)
        return True

    async def _settle_down(self, state: State, alarm_before: str = "") -> None:
        if state.wake_at:
            await self._effects.set_alarm(state)
        elif alarm_before:
            await self._effects.clear_alarm(state, alarm_before)
        await self._keeper.rest(state)

    async def _finish(self, state: State) -> None:
        await self._effects.ended(state)
        await self._keeper.rest(state)

    async def _heal(self, state: State) -> None:
        """There is nothing to record; whoever was here before may not have come to the end of it."""
        if not state.at_rest:
            return
        if is_terminal(state.status):
            if self._request.lease.delivered > 1:
                await self._finish(state)
        elif state.status != "PAUSED" or self._request.lease.delivered > 1:
            await self._settle_down(state)
