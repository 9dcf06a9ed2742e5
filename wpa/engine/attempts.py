"""The attempts that a driver has under way: begun, waited for, interrupted.

The usual case, one step at a time, runs in the driver's own task: a task of its own for each step would cost
a sixth of the throughput. Only where several run side by side, or something else may wake the driver, has
each its own.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Set
from functools import partial

from wpa.engine.patience import until_done
from wpa.engine.runner import StepCall
from wpa.engine.services import Services
from wpa.errors import OverLimit
from wpa.kernel.execution import Attempt, Execution
from wpa.kernel.verdict import too_late
from wpa.model.events import Failure
from wpa.model.ids import idempotency_key
from wpa.model.times import parse_ms

__all__ = ["Attempts"]

log = logging.getLogger("wpa.engine")

STOP_WITHIN_S = 3.0
"""How long a cancelled attempt may take to stop."""
SET_BACK_MS = 1_000
"""By so much a clock that is behind what was slept has been set back; less is slept for."""


class Attempts:
    """One execution's attempts. Belongs to one driver; not shared."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._overdue: asyncio.TimerHandle | None = None
        self._execution: Execution | None = None
        """Whose attempts have tasks of their own."""
        self._running: dict[str, asyncio.Task[Attempt]] = {}
        """By slot; those that have ended, too, until the driver hears of it."""
        self._ended: deque[str] = deque()
        self._sleeping: set[str] = set()
        self._storing: set[str] = set()
        """The slots whose work is done, and whose output is being stored apart."""
        self._news = False
        self._wake: asyncio.Future[None] | None = None
        """What the driver waits on: set by an attempt's end, by news, or by its alarm."""
        self._direct: asyncio.Task[None] | None = None
        """The driver's own task, while an attempt is made in it."""
        self._interrupted = False

    def __bool__(self) -> bool:
        return bool(self._running)

    @property
    def busy(self) -> Set[str]:
        """The slots at which an attempt is being made right now; not those that wait for a retry."""
        return self._running.keys() - self._sleeping

    @property
    def slots(self) -> Set[str]:
        """The slots that are taken care of."""
        return self._running.keys()

    # -- from outside ------------------------------------------------------------------------

    def wake(self) -> None:
        """There is news."""
        self._news = True
        self._ring()

    def interrupt(self, stuck: Callable[[], None]) -> None:
        """There is news that ends everything: stop an attempt that is made in the driver's own task.

        ``stuck`` is called when it does not stop within ``STOP_WITHIN_S``.
        """
        self.wake()
        if self._direct is not None and not self._interrupted and not self._storing:
            self._interrupted = True
            self._direct.cancel()
            self._overdue = self._services.loop.call_later(STOP_WITHIN_S, stuck)

    def take_news(self) -> bool:
        """Whether there was news; it is taken for read."""
        had, self._news = self._news, False
        return had

    def _ring(self) -> None:
        if self._wake is not None:
            _settle(self._wake)

    # -- attempts ----------------------------------------------------------------------------

    async def directly(self, execution: Execution, slot_id: str) -> Attempt | None:
        """Make one attempt in this very task. None where it was interrupted by news, or is to be put off."""
        if self._news:
            return None  # it may be what would interrupt it
        self._direct = asyncio.current_task(self._services.loop)
        try:
            retry_at = execution.state.slots[slot_id].retry_at
            if retry_at and (not await self._sleep_until(slot_id, parse_ms(retry_at)) or self._news):
                return None  # it may have been paused
            return await self._make(execution, slot_id)
        except asyncio.CancelledError:
            if not self._interrupted or self._direct is None or self._direct.uncancel() > 0:
                raise
            return None
        finally:
            self._direct, self._interrupted = None, False
            if self._overdue is not None:
                self._overdue.cancel()
                self._overdue = None

    def begin(self, execution: Execution, slot_id: str) -> None:
        """Make an attempt in a task of its own."""
        self._execution = execution
        task = self._services.loop.create_task(self._attempt(execution, slot_id))
        self._running[slot_id] = task
        task.add_done_callback(partial(self._on_end, slot_id))

    def _on_end(self, slot_id: str, task: asyncio.Task[Attempt]) -> None:
        if self._running.get(slot_id) is task:  # else it was stopped, and nobody waits for it
            self._ended.append(slot_id)
            self._ring()

    async def next(self, within_s: float | None) -> Attempt | None:
        """The first attempt to end. None where there was news, or the time was over, before."""
        if not self._ended and not self._news:
            await self._wait(within_s)
        if self._news or not self._ended:
            return None
        return self._running.pop(self._ended.popleft()).result()

    async def take_successes(self) -> list[Attempt]:
        """The attempts that have succeeded, and of which the driver has not heard yet.

        What is being stored is waited for, however long that takes: it is done, and would be forgotten.
        """
        if storing := [self._running[slot_id] for slot_id in self._storing & self._running.keys()]:
            await asyncio.wait(storing)
        ended = [self._running[slot_id].result() for slot_id in self._ended]
        successes = [attempt for attempt in ended if attempt.error is None]
        for attempt in successes:
            del self._running[attempt.slot]
            self._ended.remove(attempt.slot)
        return successes

    async def _wait(self, within_s: float | None) -> None:
        wake = self._wake = self._services.loop.create_future()
        alarm: asyncio.Task[None] | None = None
        if within_s is not None:
            alarm = self._services.loop.create_task(self._services.clock.sleep(within_s))
            # Its own wait, and no other: one that is cancelled below ends when the next wait may have begun.
            alarm.add_done_callback(lambda _: _settle(wake))
        try:
            await wake
        finally:
            self._wake = None
            if alarm is not None:
                alarm.cancel()

    async def stop(self, slots: set[str] | None = None) -> None:
        """Cancel the attempts at ``slots`` (all, by default) and wait until they have stopped."""
        stopping = {task: slot for slot, task in self._running.items() if slots is None or slot in slots}
        for task, slot in stopping.items():
            task.cancel()
            del self._running[slot]
            if slot in self._ended:
                self._ended.remove(slot)
        if stopping:
            _, stuck = await asyncio.wait(stopping, timeout=STOP_WITHIN_S)
            for task in stuck:
                self._warn(stopping[task])

    def _warn(self, slot_id: str) -> None:
        if self._execution is not None:
            state = self._execution.state
            slot = state.slots.get(slot_id)
            log.warning(
                "%s.%s: step %s, attempt %d, ignores its cancellation and is left behind",
                state.tenant, state.execution, slot_id, slot.attempt if slot is not None else 1,
            )  # fmt: skip

    async def stop_sleepers(self) -> list[str]:
        """Stop what only waits for its retry, and say which slots that were."""
        sleeping = [slot_id for slot_id in self._running if slot_id in self._sleeping]
        await self.stop(set(sleeping))
        return sleeping

    async def _attempt(self, execution: Execution, slot_id: str) -> Attempt:
        state = execution.state
        slot = state.slots[slot_id]
        if slot.retry_at:
            while not await self._sleep_until(slot_id, parse_ms(slot.retry_at)):
                self.wake()  # it may take long: there may be news that nobody was told of
        return await self._make(execution, slot_id)

    async def _make(self, execution: Execution, slot_id: str) -> Attempt:
        services = self._services
        state = execution.state
        slot, want = state.slots[slot_id], execution.wants[slot_id]
        started = services.clock.now_ms()
        if (late := too_late(slot, want.policy, started)) is not None:
            return Attempt(slot=slot_id, started_ms=started, error=late)
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
            idempotency_key=idempotency_key(state.key, slot_id),
            metadata=state.metadata,
            timeout_s=None if timeout_ms is None else timeout_ms / 1000,
            trim=want.trim,
        )
        services.announce(call, started)
        result = await services.runner.run(call)
        services.trace(call, state.traceparent, started, result.error)
        if result.error is not None:
            return Attempt(slot=slot_id, started_ms=started, error=result.error)
        output, raw = result.output, result.raw
        stored = None if raw is None else services.payloads.inline(output, raw)
        if stored is None:
            self._storing.add(slot_id)
            try:
                # The work is done: what it came to is held until there is room, and not worked out again.
                stored = await until_done(
                    lambda: services.payloads.store(state.tenant, state.execution, output, raw)
                )
            except OverLimit as error:
                failure = Failure(type="OutputTooLarge", message=error.message, retryable=False)
                return Attempt(slot=slot_id, started_ms=started, error=failure)
            finally:
                self._storing.discard(slot_id)
        return Attempt(slot=slot_id, started_ms=started, output=output, stored=stored)

    async def _sleep_until(self, slot_id: str, at_ms: int) -> bool:
        """Sleep until ``at_ms``. False, once that was slept, where the clock has been set back meanwhile."""
        clock = self._services.clock
        self._sleeping.add(slot_id)
        try:
            left = at_ms - clock.now_ms()
            while left > 0:
                await clock.sleep(left / 1000)
                left = at_ms - clock.now_ms()
                if left > SET_BACK_MS:
                    return False
        finally:
            self._sleeping.discard(slot_id)
        return True


def _settle(wake: asyncio.Future[None]) -> None:
    if not wake.done():
        wake.set_result(None)
