"""The driver: one task message in hand, one execution driven as far as it goes, one ack.

The order of actions is the whole point; each line of the commit protocol has its place, here or in
:mod:`wpa.engine.drive`:

1. the task is leased (the unacknowledged message) and its lease is kept alive by the heartbeat;
2. each transition is one append, by compare-and-set (:mod:`wpa.engine.commit`);
3. nothing is run before the event that opened it is stored;
4. what is to run is derived from the folded state, so a takeover runs the same under the same keys;
5. at rest: ``workflow_waiting`` is appended, then the alarm is set and the snapshot written, and only then
   is the task acked;
6. a driver that meets a newer epoch stops at once: no append, no ack, no nak.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import Any, Final

from wpa.engine.asks import append, decide, interrupts, rests_until, unknown_execution
from wpa.engine.blocking import Blocking
from wpa.engine.commit import Lost
from wpa.engine.door import Request, conflict
from wpa.engine.drive import Drive
from wpa.engine.effects import Effects
from wpa.engine.loading import Loaded, folded, load, load_latest, revive
from wpa.engine.opening import append_first, open_new
from wpa.engine.services import Services
from wpa.engine.snapshots import Keeper
from wpa.engine.turns import Line
from wpa.errors import Conflict, FlowMissing, NotFound, PoisonMessage, TaskRejected
from wpa.kernel.draft import Draft
from wpa.kernel.execution import Diverged
from wpa.model.codec import decode_event, encode_event
from wpa.model.state import Parent, State, is_terminal
from wpa.model.tasks import CancelTask, ChildEndedTask, Task, TimerDue
from wpa.model.times import parse_ms

__all__ = ["Driver"]

log = logging.getLogger("wpa.engine")

CHILD_FRESH_MS: Final = 3_000
"""A child's start that is younger can't have outlived a cancel that was handed back ``EARLY_TRIES`` times."""
LOOK_AT_CLOCK_S: Final = 1.0
EARLY_TRIES: Final = 6
"""A request may overtake the start it belongs to: so often it is handed back before it is rejected."""


class TooEarly(Conflict):
    """A request for an execution that may be about to start."""


class Driver:
    """Drives one execution. Cancel its task to make it stop without a trace (no ack, no nak).

    ``give_up`` is called when a step ignores its cancellation and holds this driver: another one has to be
    started for the same request. It takes over as from a driver that is gone.
    """

    def __init__(self, services: Services, request: Request, give_up: Callable[[], None]) -> None:
        self._services = services
        self._request = request
        self._keeper = Keeper(services)
        self._effects = Effects(services)
        self._drive = Drive(services, request, self._keeper, self._effects, give_up)
        self._blocking = Blocking(services, request, self._drive, self._effects)
        self._may_be_behind = services.ports.lags()
        """Whether what is read next may lack what was stored a moment ago."""

    @property
    def epoch(self) -> int:
        """The epoch under which this driver appends."""
        return self._drive.epoch

    def is_older(self, epoch: int) -> bool:
        """Whether it drives the execution, under an older epoch. What only asks something of it does not."""
        return self._drive.execution is not None and self._drive.epoch < epoch

    async def drive(self) -> None:
        """Drive until the execution is at rest, and ack.

        Raises Superseded when another worker took over, TaskRejected when the task may not run, and
        PlatformError when the turn has to be tried again by whoever gets the task next.
        """
        try:
            try:
                if await self._begin():
                    await self._drive.advance()
            except (Diverged, TaskRejected) as error:
                if self._drive.execution is None:
                    raise
                # What was asked is recorded: it is the execution that can't go on, and not the task.
                state = self._drive.execution.state
                if isinstance(error, PoisonMessage) or self._drive.works:
                    await self._blocking.leave_to_other_code(state, error)
                    await self._drive.stop()
                    state = await self._blocking.take_over(state)  # what runs is lost
                await self._blocking.block(state, error)
            self._request.lease.ack()
        finally:
            await self._drive.stop()

    async def condemn(self, error: PoisonMessage) -> None:
        """Instead of :meth:`drive`, for a task that ends whoever takes it. Where that is what its execution
        comes to next, it is blocked, and the task acked. Raises ``error`` where it is the task itself.
        """
        request, services = self._request, self._services
        loaded = None
        if request.execution:
            loaded = await load_latest(services.ports, services.clock, request.tenant, request.execution)
        if loaded is None or is_terminal(loaded.state.status):
            raise error
        self._keeper.adopt(loaded)
        state = loaded.state
        if state.lease == request.lease.identity:
            await self._blocking.block(await self._blocking.take_over(state), error)
        elif not isinstance(request.task, TimerDue):
            raise error
        elif rests_until(state, request.task):
            await self._blocking.block(state, error)
        request.lease.ack()

    def news(self, *, interrupt: bool) -> None:
        """Somebody else has appended to the journal. ``interrupt``: look at it even in mid-step."""
        self._drive.news(interrupt=interrupt)

    # -- beginnings --------------------------------------------------------------------------

    def _begin(self) -> Coroutine[Any, Any, bool]:
        """Start the execution, take it over, or record what is asked of it. False: nothing to drive."""
        task = self._request.task
        return self._begin_start(task) if isinstance(task, Task) else self._begin_ask()

    async def _begin_start(self, task: Task) -> bool:
        request = self._request
        if request.lease.delivered == 1 and (task.parent is None or self._is_fresh()):
            try:
                await self._start(task)
                return True
            except Lost:
                pass  # it exists: a duplicate, or a redelivery that the server forgot to count
        loaded = await load(self._services.ports, request.tenant, request.execution)
        if loaded is None:
            wanted = task.parent is None or await self._is_awaited(task.parent)
            if not wanted and request.lease.delivered == 1:
                return False
            await self._start(task, wanted=wanted)
            return True
        state = loaded.state
        self._keeper.adopt(loaded)
        if state.lease == request.lease.identity:
            return await self._take_over(loaded)
        self._answer_duplicate(state)
        if is_terminal(state.status) and task.parent is not None and await self._is_awaited(task.parent):
            await self._drive.finish(state)  # the parent, tried again, has to hear of it once more
        else:
            await self._heal(state)
        return False

    def _is_fresh(self) -> bool:
        return self._services.clock.now_ms() - self._request.lease.stored_ms < CHILD_FRESH_MS

    async def _is_awaited(self, parent: Parent) -> bool:
        """Whether a start that has lain in the queue is wanted still: whoever waits for a child may have
        stopped. The cancel of one that has not begun is handed back for a while, and then dropped. A child
        that is to be abandoned then is not cancelled, and begins."""
        if (loaded := await self._load(parent.execution_id)) is not None:
            state, slot = loaded.state, loaded.state.slots.get(parent.slot)
            if slot and slot.name == self._request.execution and (slot.abandon or slot.id in state.open):
                return True
        if self._may_be_behind:  # it may have been opened, or the parent tried again, a moment ago
            self._may_be_behind = False
            return await self._is_awaited(parent)
        return False

    async def _start(self, task: Task, *, wanted: bool = True) -> None:
        """Begin the execution. A child that is not ``wanted`` ends before it does anything: were its start
        dropped, whoever was given that before might begin it still, and nobody would take over from there."""
        services, request = self._services, self._request
        opened = await open_new(services, request, task, self.epoch)
        execution, event = opened.execution, opened.event
        position = await append_first(services, event)
        self._drive.take(execution, opened.values, self.epoch)
        await self._drive.begin(event, position, wanted=wanted)
        request.answer({"ok": True, "execution_id": request.execution, "workflow_id": event.workflow_id,
                        "version": execution.program.version, "duplicate": False})  # fmt: skip

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
            await services.crew.check(program)
            execution, values = await revive(program, state, services.limits, services.payloads)
        except (Diverged, NotFound) as error:
            await self._blocking.leave_to_other_code(state, error)
            return await self._blocking.block(await self._blocking.take_over(state), error)
        self._drive.take(execution, values, state.epoch + 1)
        reason = f"the task was delivered again ({self._request.lease.delivered})"
        while not await self._drive.record(
            execution.recovered(services.worker, reason, services.clock.now_ms())
        ):
            if is_terminal(execution.state.status):
                return True  # terminated in the meantime
        services.ports.live.nudge(previous, state.tenant, state.execution, self.epoch, "taken_over")
        log.info("took over %s.%s from %s, epoch %d", state.tenant, state.execution, previous, self.epoch)
        await self._drive.resume_effects()
        return True

    async def _begin_ask(self) -> bool:
        """Record what is asked; drive on where the execution was at rest and has to go on."""
        request = self._request
        async with self._services.turns.turn(request.tenant, request.execution) as line:
            then = await self._ask(line)
        return await then()

    async def _ask(self, line: Line) -> Callable[[], Awaitable[bool]]:
        """Record what is asked. Answers with what follows from it, to be done when the turn is over."""
        services, request = self._services, self._request
        loaded = line.take_known()
        while True:
            loaded = loaded or await self._find()
            if loaded is None:
                return self._look_again if self._may_be_behind else _nothing
            self._keeper.adopt(loaded)
            state = loaded.state
            if state.lease == request.lease.identity:
                return partial(self._take_over, loaded)
            if isinstance(request.task, TimerDue) and await self._blocking.is_still(state):
                return _nothing
            poison = await self._blocking.try_again(state)
            try:
                draft = await self._decided(state)
            except TaskRejected:
                if self._may_be_behind:
                    return self._look_again
                raise
            if draft is None:
                return self._nothing_to_record(state)
            driving = "lease" in draft.data
            if driving and poison is None:
                await self._prepare_to_drive(state, draft.data.get("version", state.version))
            # Whoever was blocked took over, and did not come to issue again what the one before had not.
            anew = "reopen" in draft.data or state.blocked is not None
            before, epoch = state.worker, state.epoch + driving
            try:
                event, position = await append(services, draft, state, epoch)
            except Lost as lost:
                # Decide again, on what is there now.
                loaded = loaded._replace(state=folded(state, lost.tail))
                continue
            # As it is stored: what is told to the program must be what a later load will tell it.
            state = folded(state, [(position, decode_event(encode_event(event)))])
            if driving:
                return partial(self._go_on, state, anew=anew, poison=poison)
            if not is_terminal(state.status):
                line.known = loaded._replace(state=state)
            return partial(self._tell, state, before)

    async def _decided(self, state: State) -> Draft | None:
        services, request = self._services, self._request
        try:
            return await decide(services, state, request.task, request.lease.identity, request.name)
        except Conflict as ahead:
            raise TaskRejected("not_waiting", str(ahead)) from None
        except Diverged as error:  # whether what is asked can be done, only its own code can tell
            await self._blocking.leave_to_other_code(state, error)
            raise

    def _nothing_to_record(self, state: State) -> Callable[[], Awaitable[bool]]:
        # Both may be of no use by now. Or what they are for was stored a moment ago: an alarm rings at once
        # where a worker with a slow clock has set it.
        if self._may_be_behind and isinstance(self._request.task, ChildEndedTask | TimerDue):
            return self._look_again
        return partial(self._sleep_in if self._is_early(state) else self._asked_before, state)

    async def _look_again(self) -> bool:
        """What can't be done may have been judged by a replica that has not heard of all yet."""
        self._may_be_behind = False
        return await self._begin_ask()

    def _is_early(self, state: State) -> bool:
        """Whether an alarm has rung in time by the server's clock, and too early by this worker's."""
        request = self._request
        if not isinstance(request.task, TimerDue) or not rests_until(state, request.task):
            return False
        return self._services.clock.now_ms() < parse_ms(state.wake_at) <= request.lease.stored_ms

    async def _sleep_in(self, state: State) -> bool:
        """Wait for this worker's clock, and ask again: an alarm set anew would ring again at once."""
        clock, wake_ms = self._services.clock, parse_ms(state.wake_at)
        while (left_ms := wake_ms - clock.now_ms()) > 0:
            await clock.sleep(min(left_ms / 1000, LOOK_AT_CLOCK_S))  # somebody may set it right
        return await self._begin_ask()

    async def _asked_before(self, state: State) -> bool:
        self._request.answer({"ok": True, "execution_id": state.execution, "duplicate": True})
        await self._heal(state)
        return False

    async def _go_on(self, state: State, *, anew: bool, poison: PoisonMessage | None) -> bool:
        self._request.answer({"ok": True, "execution_id": state.execution, "duplicate": False})
        if poison is not None:
            return await self._blocking.block(state, poison)
        return await self._pick_up(state, anew=anew)

    async def _tell(self, state: State, driver: str) -> bool:
        """What was asked is recorded; whoever drives the execution should know at once."""
        request = self._request
        request.answer({"ok": True, "execution_id": state.execution, "duplicate": False})
        reason = "cancel" if interrupts(request.task) else "news"
        self._services.ports.live.nudge(driver, state.tenant, state.execution, state.epoch, reason)
        if is_terminal(state.status):
            await self._drive.finish(state)
        return False

    async def _find(self) -> Loaded | None:
        """The execution that the request names; None where nothing is left to ask of it."""
        request = self._request
        loaded = await self._load(request.execution)
        if loaded is not None or isinstance(request.task, TimerDue):
            return loaded
        unknown = unknown_execution(request.tenant, request.execution)
        if request.lease.delivered <= EARLY_TRIES:
            raise TooEarly(unknown.message)
        if isinstance(request.task, CancelTask) and request.task.payload.parent is not None:
            return None  # a child that never began, and will not: see _is_awaited
        if self._may_be_behind:
            return None
        raise unknown

    async def _load(self, execution: str) -> Loaded | None:
        """An execution as it is; surely so once ``_may_be_behind`` says no."""
        ports, tenant = self._services.ports, self._request.tenant
        if not self._may_be_behind:
            return await load_latest(ports, self._services.clock, tenant, execution)
        return await load(ports, tenant, execution)

    async def _pick_up(self, state: State, *, anew: bool) -> bool:
        """Become the driver of an execution that was at rest. The event that says so is folded.

        ``anew``: what is open is to be sent, or started, once more.
        """
        services = self._services
        try:
            program = await services.library.program(state.tenant, state.workflow, state.version)
            execution, values = await revive(program, state, services.limits, services.payloads)
        except (Diverged, NotFound) as error:
            return await self._blocking.block(state, error)
        self._drive.take(execution, values, state.epoch)
        if anew:
            await self._drive.resume_effects()
        return True

    async def _prepare_to_drive(self, state: State, version: str) -> None:
        """What comes before this worker says that it drives on, with ``version``: it may be migrated to that.

        Raises StepsMissing where another worker has to.
        """
        services = self._services
        if is_terminal(state.status):  # it is tried again: from then on, its children go by other names
            await self._effects.close_left(state)
        try:
            program = await services.library.program(state.tenant, state.workflow, version)
        except (FlowMissing, TaskRejected):
            return  # what comes of that is seen to when the execution is picked up
        await services.crew.check(program)

    async def _heal(self, state: State) -> None:
        """There is nothing to record; whoever was here before may not have come to the end of it."""
        if not state.at_rest:
            return
        if is_terminal(state.status):
            # The snapshot is written when all else is done. The count alone does not tell: a server that
            # is killed may forget that it has delivered a message.
            if self._request.lease.delivered > 1 or not self._keeper.kept(state):
                await self._drive.finish(state)
        elif state.status != "PAUSED" or self._request.lease.delivered > 1:
            await self._drive.settle_down(state)


async def _nothing() -> bool:
    return False
