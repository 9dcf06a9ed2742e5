"""The drive: one execution in hand, advanced step by step until it rests or has ended.

Each transition is one append; nothing is run before the event that opened it is stored. Others may append
while it drives: signals, pauses, cancels (:mod:`wpa.engine.asks`). The next append then loses its
compare-and-set; the drive folds what came in between and decides again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, Final

from wpa.engine.attempts import Attempts
from wpa.engine.commit import Lost, commit
from wpa.engine.door import Request
from wpa.engine.effects import Effects, alarm_of, is_left
from wpa.engine.loading import Values, in_turns, kept_apart, referring
from wpa.engine.patience import until_done
from wpa.engine.services import Services
from wpa.engine.snapshots import Keeper
from wpa.engine.suspects import TRIED_FROM, poison
from wpa.engine.trials import Result
from wpa.errors import Conflict, OverLimit, Superseded, TooLarge, Unavailable
from wpa.kernel.draft import Draft, plain_value, seal
from wpa.kernel.execution import Attempt, Diverged, Execution
from wpa.kernel.oversize import end_instead
from wpa.kernel.rebase import is_overtaken, rebase
from wpa.kernel.requests import cancel_requested
from wpa.model import events as ev
from wpa.model.events import Event
from wpa.model.state import State, decode_state, encode_state, is_terminal
from wpa.model.times import parse_ms
from wpa.ports.journal import Stored

__all__ = ["Drive"]

log = logging.getLogger("wpa.engine")

NAP_MS: Final = 2_000
"""What is due within this time is waited for here; for all else the execution comes to rest."""
LOOKS_S: Final = (0.0, 0.05, 0.2, 0.5)
"""Before each look for what a step is to be interrupted for: a replica may not have heard of it yet."""
_ONWARD: Final = frozenset({ev.STEP_COMPLETED, ev.COMPLETED})
NEWS_WITHIN_S: Final = 0.1
"""So long it is waited for what somebody in this worker is about to say, before looking again."""


class Drive:
    """Advances one execution under one epoch. ``request``, ``keeper`` and ``effects`` are the driver's.

    ``give_up`` is called when a step holds the drive though it was interrupted: another driver has to take
    over. This drive does nothing more; it raises Superseded when its step ever ends.
    """

    def __init__(
        self,
        services: Services,
        request: Request,
        keeper: Keeper,
        effects: Effects,
        give_up: Callable[[], None],
    ) -> None:
        self._services = services
        self._request = request
        self._keeper = keeper
        self._effects = effects
        self._attempts = Attempts(services)
        self._give_up = give_up
        self._given_up = False
        self._execution: Execution = None  # type: ignore[assignment]  # set by ``take``
        self._values = Values(services.payloads)
        self._todo: list[str] = []
        """Open steps for which an attempt is to be begun."""
        self._looking: asyncio.Task[None] | None = None
        self._heard: list[Stored] = []
        """What interrupted a step, not folded yet."""
        self.epoch = 1

    @property
    def execution(self) -> Execution:
        """What is driven."""
        return self._execution

    @property
    def works(self) -> bool:
        """Whether an attempt is being made whose end would not be recorded, were this stopped now."""
        return bool(self._attempts.busy)

    def take(self, execution: Execution, values: Values, epoch: int) -> None:
        """Take an execution in hand, as it was loaded: its open steps are to be attempted."""
        self._execution, self._values, self.epoch = execution, values, epoch
        state = execution.state
        if state is not None:
            self._todo = [slot_id for slot_id in state.open if state.slots[slot_id].kind == "step"]

    def news(self, *, interrupt: bool) -> None:
        """Somebody else has appended to the journal. ``interrupt``: look at it even in mid-step."""
        self._attempts.wake()
        if interrupt and self._execution is not None and self._looking is None:
            self._looking = asyncio.create_task(self._look())
            self._looking.add_done_callback(self._looked)

    def _looked(self, task: asyncio.Task[None]) -> None:
        self._looking = None

    async def _look(self) -> None:
        """Interrupt a step for what is recorded, not for what is said: it may not be run a second time."""
        services, state = self._services, self._execution.state
        for pause_s in LOOKS_S:
            await services.clock.sleep(pause_s)
            try:
                tail = await services.ports.journal.read(state.tenant, state.execution, state.position)
            except Unavailable:
                continue
            if any(event.event in (ev.CANCEL_REQUESTED, ev.CANCELLED) for _, event in tail):
                self._heard = tail
                self._attempts.interrupt(self._stuck)
                return

    def _stuck(self) -> None:
        """The only open step ignores its interruption, and holds the driver's own task."""
        state = self._execution.state
        slot = state.slots[state.open[0]]
        log.warning(
            "%s.%s: step %s (%s), attempt %d, ignores its cancellation and is left behind; "
            "another driver takes over. Let the step pass CancelledError on, or look at ctx.cancelled",
            state.tenant, state.execution, slot.id, self._execution.wants[slot.id].uses, slot.attempt,
        )  # fmt: skip
        self._given_up = True
        self._give_up()

    async def stop(self) -> None:
        """Stop everything that runs. Idempotent."""
        if self._looking is not None:
            self._looking.cancel()
        await self._attempts.stop()

    async def resume_effects(self) -> None:
        """Issue again whatever the driver before may not have come to."""
        state = self._execution.state
        await self._effects.close_left(state)
        for slot_id in state.open:
            if slot_id in self._execution.wants:  # else it is about to be dropped
                await self._effects.open_slot(self._execution, slot_id)

    # -- the dialogue with the kernel --------------------------------------------------------

    async def advance(self) -> None:
        """Keep to the dialogue of :mod:`wpa.kernel.execution` until the execution rests or has ended."""
        execution, clock, attempts = self._execution, self._services.clock, self._attempts
        while True:
            if attempts.take_news():
                await self._catch_up()
            now = clock.now_ms()
            if attempts and (execution.fails or execution.is_to_end(now)):
                now = await self._before_the_end(now)
            while draft := execution.follow_up(now, attempts.busy if execution.fails else ()):
                await self.record(draft)
                now = clock.now_ms()
            state = execution.state
            if is_terminal(state.status):
                await self.finish(state)
                return
            if (execution.fails or state.status == "PAUSED") and (sleepers := await attempts.stop_sleepers()):
                self._todo += sleepers  # what only waited for a retry begins nothing now
                continue
            ready = self._take_todo(now) if self._todo else []
            if not ready and not attempts and not self._due_soon():
                if self._services.turns.waited_for(state.tenant, state.execution):
                    await attempts.next(NEWS_WITHIN_S)
                elif await self._rest():
                    return
                continue
            attempt = await self._next_attempt(ready)
            if attempt is not None and attempt.slot in execution.state.open:
                await self._ended(attempt)
            if self._keeper.due(execution.state):
                await self._keeper.keep(execution.state)

    async def _before_the_end(self, now_ms: int) -> int:
        """Record what has succeeded until now: it is to be undone, or at least named. Stop what runs, unless
        that is let end, or the program cleans up first. Returns the time then: no earlier than ``now_ms``."""
        execution, attempts = self._execution, self._attempts
        while successes := await attempts.take_successes():
            for attempt in successes:
                if attempt.slot in execution.state.open:
                    await self.record(execution.attempted(attempt, now_ms))
        if execution.ending(now_ms) is not None:
            await attempts.stop()
        return max(now_ms, self._services.clock.now_ms())

    def _take_todo(self, now_ms: int) -> list[str]:
        """The steps that may be attempted now; those whose retry is far away stay for later, and in a pause
        all do: also what a driver that died had begun."""
        state = self._execution.state
        ready, later = [], []
        for slot_id in self._todo:
            slot = state.slots[slot_id]
            if slot.status != "open":
                continue  # given up in the meantime
            far = slot.retry_at and (self._execution.fails or parse_ms(slot.retry_at) - now_ms > NAP_MS)
            if far or state.status == "PAUSED":
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
        alone = len(ready) == 1 and not attempts and len(execution.state.open) == 1
        alone = alone and execution.stops(ready[0])  # else news would interrupt what is to go on
        if alone and not execution.state.deadline_at:  # by which the attempt would have to be stopped
            attempt = await attempts.directly(execution, ready[0])
            if self._given_up:
                name = f"{execution.state.tenant}.{execution.state.execution}"
                raise Superseded(f"{name}: its step has ended after all, and changes nothing")
            if attempt is None:
                self._todo.append(ready[0])
            return attempt
        for slot_id in ready:
            attempts.begin(execution, slot_id)
        wake = execution.wake_ms(attempts.slots)
        within = None if wake is None else max(0.0, (wake - self._services.clock.now_ms()) / 1000)
        return await attempts.next(within)

    def _ended(self, attempt: Attempt) -> Coroutine[Any, Any, object]:
        """Record how an attempt has ended, and do what follows."""
        if self._execution.state.slots[attempt.slot].lost >= TRIED_FROM - 1:
            return self._try(attempt)
        return self.record(self._execution.attempted(attempt, self._services.clock.now_ms()))

    async def _try(self, attempt: Attempt) -> None:
        """Workers ended while this step ran, or when it had: see first whether what follows from its result
        lets one live. Raises PoisonMessage where it doesn't."""
        trials, lease = self._services.trials, self._request.lease
        if trials is not None:
            result = Result(output=attempt.output, error=attempt.error)
            if death := await trials.attend(lease, {attempt.slot: result}):
                raise poison(death, lease.delivered, self._services.worker)
        if attempt.slot in self._execution.state.open:
            await self.record(self._execution.attempted(attempt, self._services.clock.now_ms()))

    async def record(self, draft: Draft) -> bool:
        """Append a draft, fold it, and do what it asks for. False where it has to be decided again.

        Instead of one that is too large to be stored, the execution's end is appended.
        """
        execution, services = self._execution, self._services
        state = execution.state
        if key := plain_value(draft):
            draft = await self._with_payload(draft, key)
        while True:
            event = seal(draft, state, id=services.next_id(), worker=services.worker, epoch=self.epoch)
            try:
                position = await commit(services.ports.journal, event, state.position)
                break
            except TooLarge as error:
                draft = self._end_instead(draft, error)
                continue
            except Lost as lost:
                await self._fold_in(lost.tail)
                if is_overtaken(draft, execution.state, [event for _, event in lost.tail]):
                    await self._decide_anew()
                    return False
            rebased = rebase(draft, execution.state)
            if rebased is None:
                return False
            draft = rebased
        left = [state.slots[slot_id] for slot_id in state.open] if draft.event == ev.CONTINUED else None
        opened = execution.record(event, position)
        if _only_opens(event):
            self._todo += opened
        else:
            await self._react(event, opened)
        if left:
            await self._effects.close(state, left)
        return True

    async def _decide_anew(self) -> None:
        """Forget what was decided and is not recorded."""
        state = decode_state(encode_state(self._execution.state))  # plain, as it would be loaded
        for stored in referring(state):
            await until_done(partial(self._values.fetch, stored))
        await in_turns(self._execution.renewing(state))

    async def _with_payload(self, draft: Draft, key: str) -> Draft:
        """A draft of a plain value, with that as the journal keeps it."""
        payloads, state = self._services.payloads, self._execution.state
        value = draft.data[key]
        stored = payloads.inline(value)
        if stored is None:
            try:
                stored = await until_done(lambda: payloads.store(state.tenant, state.execution, value))
            except OverLimit as error:
                return self._end_instead(draft, error)
        draft.data[key] = stored
        return draft

    def _end_instead(self, draft: Draft, error: OverLimit | TooLarge) -> Draft:
        """The end in place of what there is no room for. Raises ``error`` where it is such an end already."""
        execution = self._execution
        state = execution.state
        log.error("%s.%s: %s is too large: %s", state.tenant, state.execution, draft.event, error)
        end = end_instead(draft, state, execution.run_view(), str(error))
        if end is None:
            raise error
        return end

    async def begin(self, event: Event, position: int, *, wanted: bool) -> None:
        """Fold the first event of a new execution, which is stored, and see to what it opens; or, where it is
        a child that nobody waits for, cancel it before anything of that begins."""
        opened = self._execution.record(event, position)
        if wanted:
            await self._react(event, opened)
            return
        by, now_ms = {"source": "wpa"}, self._services.clock.now_ms()
        draft = cancel_requested(
            self._execution.state, by, "its parent does not wait for it", True, now_ms, ""
        )
        if draft is not None:
            await self.record(draft)

    async def _react(self, event: Event, opened: list[str]) -> None:
        """Stop what is not wanted any more, and see to what is open now."""
        state, data = self._execution.state, event.data
        slots = state.slots
        if _needs_newer(event):
            await self._keeper.keep(state)  # its format tells an older worker that it can't go on with it
        if event.event == ev.COMPENSATING:
            await self._attempts.stop()
            self._todo = []
            await self._effects.close(state, [slot for slot in slots.values() if slot.status == "cancelled"])
        if event.event == ev.CONTINUED:
            await self._attempts.stop()
            self._todo = []
        if dropped := data.get("dropped"):
            await self._attempts.stop(set(dropped))
            await self._effects.close(state, [slots[slot_id] for slot_id in dropped if slot_id in slots])
        if event.event == ev.STEP_FAILED:
            failed = slots[data["slot"]]
            if is_left(failed, state):
                await self._effects.close(state, [failed])
            elif not data["final"] and failed.kind == "step":
                self._todo.append(failed.id)
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
        heard, self._heard = self._heard, []
        await self._fold_in([stored for stored in heard if stored[0] > state.position])
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
            # A driver, too, says that it goes on, and with what: we have not gone there with it.
            asked = event.event in ev.ASKED and "next" not in event.data
            known = asked and event.epoch == state.epoch  # asked while we take over
            if event.epoch < self.epoch and not known:
                # Older than our own epoch: what we had loaded was not all there was. Load again.
                raise Conflict(f"{name} was read from a replica that lagged behind")
            if event.epoch > self.epoch or not asked:
                raise Superseded(f"{name}: {event.worker} drives it now, epoch {event.epoch}")
            execution.record(event, position)
            if event.event == ev.SIGNALLED:
                told = event.data["signal"]
                payload = kept_apart(told.get("slot", ""), told.get("payload"))
                await until_done(partial(self._values.fetch, payload))  # it is no reason to stop what runs

    # -- rest and end ------------------------------------------------------------------------

    async def _rest(self) -> bool:
        """Come to rest: append it, set the alarm, write the snapshot. False where there is news."""
        execution = self._execution
        state = execution.state
        if not state.open and not state.start_at and state.status == "RUNNING":
            raise Diverged(f"{state.execution}: nothing runs, and nothing is to be run")
        before = alarm_of(state)
        recorded = await self.record(execution.resting(self._services.clock.now_ms()))
        if not recorded or is_terminal(execution.state.status):
            return False
        await self.settle_down(execution.state)
        await self._effects.clear_alarm(state.tenant, before)
        return True

    async def settle_down(self, state: State) -> None:
        await self._effects.set_alarm(state)
        await self._keeper.rest(state)

    async def finish(self, state: State) -> None:
        await self._effects.ended(state)
        await self._keeper.rest(state)


def _needs_newer(event: Event) -> bool:
    """Whether an older worker would misread the journal from this event on."""
    data = event.data
    return "cleanup" in data or "taken_seeds" in data or (event.event == ev.CONTINUED and "seed" in data)


def _only_opens(event: Event) -> bool:
    """Whether an event calls for no more than attempts at the steps that it opens: nearly all do."""
    data = event.data
    return event.event in _ONWARD and not ("waits" in data or "dropped" in data)
