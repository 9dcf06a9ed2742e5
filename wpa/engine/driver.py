"""The driver: one task message in hand, one execution driven as far as it goes, one ack.

The order of actions is the whole point; each line of the commit protocol has its place here:

1. the task is leased (the unacknowledged message) and its lease is kept alive by the heartbeat;
2. each transition is one append, by compare-and-set (:mod:`wpa.engine.commit`);
3. nothing is run before the event that opened it is stored;
4. what is to run is derived from the folded state, so a takeover runs the same under the same keys;
5. at rest: the snapshot is written, and only then is the task acked;
6. a driver that meets a newer epoch stops at once: no append, no ack, no nak.
"""

from __future__ import annotations

import asyncio
import logging

from wpa.engine.commit import Lost, commit
from wpa.engine.door import Request, conflict
from wpa.engine.loading import Loaded, load, revive
from wpa.engine.runner import StepCall
from wpa.engine.services import Services
from wpa.engine.snapshots import Keeper
from wpa.errors import Conflict, OverLimit, Superseded, TaskRejected
from wpa.kernel.draft import Draft, seal
from wpa.kernel.execution import Attempt, Diverged, Execution, Start
from wpa.kernel.program import Program
from wpa.model import events as ev
from wpa.model.events import Event, Failure
from wpa.model.ids import idempotency_key
from wpa.model.state import is_terminal
from wpa.model.times import parse_ms, rfc3339

__all__ = ["Driver"]

log = logging.getLogger("wpa.engine")

STOP_WITHIN_S = 3.0
"""How long a cancelled attempt may take to stop."""


class Driver:
    """Drives one execution. Cancel its task to make it stop without a trace (no ack, no nak)."""

    def __init__(self, services: Services, request: Request) -> None:
        self._services = services
        self._request = request
        self._keeper = Keeper(services)
        self._execution: Execution = None  # type: ignore[assignment]  # set before anything is driven
        self._attempts: dict[asyncio.Task[Attempt], str] = {}
        self._sleeping: set[str] = set()
        self.epoch = 1

    async def drive(self) -> None:
        """Drive until the execution is at rest, and ack.

        Raises Superseded when another worker took over, TaskRejected when the task may not run, and
        PlatformError when the turn has to be tried again by whoever gets the task next.
        """
        try:
            if await self._begin():
                await self._advance()
                await self._keeper.rest(self._execution.state)
            self._request.lease.ack()
        finally:
            await self._stop_attempts(set(self._attempts.values()))

    # -- beginnings --------------------------------------------------------------------------

    async def _begin(self) -> bool:
        """Start the execution, or take it over. False where there is nothing to drive."""
        request = self._request
        if request.lease.delivered == 1:
            try:
                await self._start()
                return True
            except Lost:
                pass  # it exists: a duplicate, or a redelivery that the server forgot to count
        loaded = await load(self._services.ports, request.tenant, request.execution)
        if loaded is None:
            await self._start()
            return True
        state = loaded.state
        if state.lease != request.lease.identity:
            self._answer_duplicate(loaded)
            return False
        if is_terminal(state.status):
            self._keeper.adopt(loaded)
            await self._keeper.rest(state)
            return False
        await self._take_over(loaded)
        return True

    async def _start(self) -> None:
        services, request = self._services, self._request
        task = request.task
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
        )
        execution, draft = Execution.start(program, start, now, services.limits)
        event = self._first_event(program, draft)
        position = await commit(services.ports.journal, event, 0)
        execution.record(event, position)
        self._execution = execution
        request.answer({"ok": True, "execution_id": request.execution, "workflow_id": program.id,
                        "version": program.version, "duplicate": False})  # fmt: skip

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

    def _answer_duplicate(self, loaded: Loaded) -> None:
        """Another message asked for this execution before: the same again, or a conflict."""
        state, request = loaded.state, self._request
        if state.start_hash != request.start_hash:
            raise conflict(state)
        request.answer({"ok": True, "execution_id": state.execution, "workflow_id": state.workflow,
                        "version": state.version, "duplicate": True})  # fmt: skip

    async def _take_over(self, loaded: Loaded) -> None:
        services, state = self._services, loaded.state
        program = await services.library.program(state.tenant, state.workflow, state.version)
        previous = state.worker
        self._keeper.adopt(loaded)
        self._execution = await revive(program, state, services.limits, services.payloads)
        self.epoch = state.epoch + 1
        reason = f"the task was delivered again ({self._request.lease.delivered})"
        await self._record(self._execution.recovered(services.worker, reason, services.clock.now_ms()))
        services.ports.live.nudge(previous, state.tenant, state.execution, self.epoch)
        log.info("took over %s.%s from %s, epoch %d", state.tenant, state.execution, previous, self.epoch)

    # -- the dialogue with the kernel --------------------------------------------------------

    async def _advance(self) -> None:
        """Keep to the dialogue of :mod:`wpa.kernel.execution` until the execution has ended."""
        execution, clock = self._execution, self._services.clock
        todo = list(execution.state.open)
        while True:
            while draft := execution.follow_up(clock.now_ms(), self._busy()):
                todo += await self._record(draft)
                if execution.state.status == "COMPENSATING" and draft.event == ev.COMPENSATING:
                    await self._stop_attempts(set(self._attempts.values()))
                    todo = list(execution.state.open)
            if is_terminal(execution.state.status):
                return
            if execution.state.failing and self._sleeping:
                await self._stop_attempts(self._sleeping)
                todo = [slot for slot in todo if not execution.state.slots[slot].retry_at]
                continue  # what only waited for a retry is given up
            # What has been given up in the meantime is open no more.
            attempt = await self._next_attempt([slot for slot in todo if slot in execution.state.open])
            todo = await self._record(execution.attempted(attempt, clock.now_ms()))
            if attempt.slot in execution.state.open:
                todo.append(attempt.slot)  # it is to be retried
            if self._keeper.due(execution.state):
                await self._keeper.keep(execution.state)

    async def _record(self, draft: Draft) -> list[str]:
        """Append a draft; the slots that are to run from now on are returned."""
        execution, services = self._execution, self._services
        state = execution.state
        if draft.event == ev.COMPLETED:
            output = draft.data["output"]
            draft.data["output"] = await services.payloads.store(state.tenant, state.execution, output)
        event = seal(draft, state, id=services.next_id(), worker=services.worker, epoch=self.epoch)
        try:
            position = await commit(services.ports.journal, event, state.position)
        except Lost as lost:
            newest = lost.tail[-1][1]
            name = f"{state.tenant}.{state.execution}"
            if newest.epoch < self.epoch:
                # Older than our own epoch: what we had loaded was not all there was. Load again.
                raise Conflict(f"{name} was read from a replica that lagged behind") from None
            raise Superseded(f"{name}: {newest.worker} drives it now, epoch {newest.epoch}") from None
        return execution.record(event, position)

    # -- attempts ----------------------------------------------------------------------------

    async def _next_attempt(self, todo: list[str]) -> Attempt:
        """Begin the attempts in ``todo``; return the first one, of all that run, to end."""
        if len(todo) == 1 and not self._attempts:
            # The usual case of a sequence: no task of its own for a single step.
            return await self._attempt(todo[0])
        if not todo and not self._attempts:
            raise Diverged(f"{self._request.execution}: nothing runs, and nothing is to be run")
        for slot_id in todo:
            self._attempts[asyncio.create_task(self._attempt(slot_id))] = slot_id
        await asyncio.wait(self._attempts, return_when=asyncio.FIRST_COMPLETED)
        task = next(task for task in self._attempts if task.done())
        del self._attempts[task]
        return task.result()

    async def _attempt(self, slot_id: str) -> Attempt:
        services, execution = self._services, self._execution
        state = execution.state
        slot, want = state.slots[slot_id], execution.wants[slot_id]
        if slot.retry_at:
            await self._sleep_until(slot_id, parse_ms(slot.retry_at))
        started = services.clock.now_ms()
        timeout_ms = execution.timeout_ms(slot_id, started)
        call = StepCall(
            tenant=state.tenant,
            workflow=state.workflow,
            execution=state.execution,
            step=want.step,
            slot=slot_id,
            uses=want.uses,
            inputs=want.inputs,
            attempt=slot.attempt,
            idempotency_key=idempotency_key(state.execution, slot_id),
            metadata=state.metadata,
            timeout_s=None if timeout_ms is None else timeout_ms / 1000,
        )
        services.announce(call, started)
        result = await services.runner.run(call)
        services.trace(call, state.traceparent, started, result.error)
        if result.error is not None:
            return Attempt(slot=slot_id, started_ms=started, error=result.error)
        try:
            stored = await services.payloads.store(state.tenant, state.execution, result.output, result.raw)
        except OverLimit as error:
            failure = Failure(type="OutputTooLarge", message=error.message, retryable=False)
            return Attempt(slot=slot_id, started_ms=started, error=failure)
        return Attempt(slot=slot_id, started_ms=started, output=result.output, stored=stored)

    async def _sleep_until(self, slot_id: str, at_ms: int) -> None:
        self._sleeping.add(slot_id)
        try:
            while (left := at_ms - self._services.clock.now_ms()) > 0:
                await self._services.clock.sleep(left / 1000)
        finally:
            self._sleeping.discard(slot_id)

    def _busy(self) -> set[str]:
        return set(self._attempts.values()) - self._sleeping if self._attempts else set()

    async def _stop_attempts(self, slots: set[str]) -> None:
        """Cancel the attempts at ``slots`` and wait until they have stopped."""
        stopping = [task for task, slot_id in self._attempts.items() if slot_id in slots]
        for task in stopping:
            task.cancel()
            del self._attempts[task]
        if stopping:
            _, stuck = await asyncio.wait(stopping, timeout=STOP_WITHIN_S)
            for task in stuck:
                log.warning(
                    "%s: %s ignores its cancellation and is left behind", self._request.execution, task
                )
