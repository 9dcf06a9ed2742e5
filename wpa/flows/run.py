"""One execution's pass through a flow: the coroutine, kept alive between settlements.

A run does each thing once. Settling a slot resumes the coroutine where it waits; a rebuild is nothing but a
new run that is told the same settlements. Nothing of the coroutine is ever stored.
"""

from __future__ import annotations

import contextlib
from contextvars import Context
from typing import TYPE_CHECKING, Any, Final

import msgspec

from wpa.flows.errors import UnknownSlot
from wpa.flows.ledger import Ledger, Slot
from wpa.flows.loop import FlowLoop, completed_by
from wpa.flows.outcome import outcome_of
from wpa.flows.sites import UNKNOWN, suspended_site
from wpa.flows.tasks import FlowTask, Steadfast
from wpa.flows.watchdog import TURN_S
from wpa.kernel.program import (
    CleansUp,
    ExecutionInfo,
    Failed,
    Outcome,
    Progress,
    Settled,
    StepView,
    Want,
)
from wpa.model.events import Failure
from wpa.model.times import parse_ms

if TYPE_CHECKING:
    from wpa.flows.program import FlowProgram

__all__ = ["FlowRun"]

SITES_SHOWN: Final = 5


class FlowRun(CleansUp):
    """See :class:`wpa.kernel.program.Run`, and the module.

    Whoever lets go of a run throws its coroutine away, quietly: ``finally`` blocks run, but wait for nothing.
    """

    def __init__(self, program: FlowProgram, data: Any, info: ExecutionInfo) -> None:
        self.cleanup_ms = program.cleanup_ms
        self._program = program
        self._data = data
        self._ledger = Ledger(info)
        self._loop = FlowLoop(  # type: ignore[abstract]  # what it does not define is refused
            self._ledger, parse_ms(info.started_at), program.root, program.signatures
        )
        self._main: FlowTask[Any] | None = None
        self._ending = False
        self._cancelled = False
        self._outcome: Outcome | None = None

    def __del__(self) -> None:
        loop: FlowLoop | None = getattr(self, "_loop", None)
        if loop is not None:
            loop.discard()

    # -- the protocol ------------------------------------------------------------------------

    def poll(self) -> Outcome:
        if self._main is None:
            self._main = self._loop.create_task(
                self._program.enter(self._data), name="flow", context=Context()
            )
            self._turn(self._main)
        new, outcome = self._ledger.take(), self._outcome
        if outcome is None:
            return new
        if outcome.dropped:  # told once
            self._outcome = msgspec.structs.replace(outcome, dropped=())
        if isinstance(outcome, Failed) and new.left:
            outcome = msgspec.structs.replace(outcome, left=new.left)
        return msgspec.structs.replace(outcome, recorded=new.recorded) if new.recorded else outcome

    def settle(self, settled: Settled) -> None:
        """See :meth:`wpa.kernel.program.Run.settle`.

        A step that was still running when the flow ended may be settled after its end; what has completed
        can be undone. Raises UnknownSlot for a slot that the flow does not wait for.
        """
        slot = self._ledger.find(settled.slot)
        if self._main is None or slot is None or slot.settled is not None:
            raise self._unknown(settled.slot, slot)
        if self._outcome is None and slot.status == "dropped":
            raise self._unknown(settled.slot, slot)
        self._loop.advance_clock(settled.at_ms)
        self._ledger.settle(slot, settled)
        if self._outcome is None:
            self._turn(self._main)

    def cancel(self, at_ms: int, *, compensate: bool) -> None:
        """Cancel the flow's own task, as Ctrl-C does in ``asyncio.run``: ``CancelledError`` is raised where
        it waits. Does nothing to one that has ended."""
        self._ledger.told += 1
        self._ledger.compensates = compensate
        self._cancelled = True
        self._loop.advance_clock(at_ms)
        if self._main is not None and self._outcome is None:
            _cancel(self._main)
            self._turn(self._main)

    def lets_go(self, slot: str) -> bool:
        """Whether the flow's own task waits for this slot itself, and not for another task that does."""
        wanted = self._ledger.find(slot)
        future = completed_by(wanted) if wanted is not None else None
        if isinstance(future, Steadfast):
            return False
        return future is not None and self._main is not None and self._main.awaits is future

    def undo(self, slot: str) -> Want | None:
        return self._ledger.undo(slot)

    def progress(self) -> Progress:
        return self._ledger.progress()

    def steps(self) -> list[StepView]:
        waiting = {task.awaits: task for task in self._loop.pending()}

        def site_of(slot: Slot) -> str:
            future = completed_by(slot)
            task = waiting.get(future) if future is not None else None
            return "" if task is None else suspended_site(task.get_coro(), self._program.root)

        return self._ledger.steps(site_of)

    def asked(self) -> list[str]:
        """Everything wanted so far, in order, as ``step payments_charge uses payments.charge``."""
        return list(self._ledger.asked())

    # -- going on ----------------------------------------------------------------------------

    def _turn(self, main: FlowTask[Any]) -> None:
        self._loop.turn()
        if self._loop.overrun:
            self._fail(self._overrun())
        elif main.done():
            self._wind_up(main)
        elif not self._ledger.open_slots:
            self._fail(self._stuck())

    def _wind_up(self, main: FlowTask[Any]) -> None:
        """The flow's own coroutine is done: cancel what it left running, as ``asyncio.run`` does. Where it
        has failed, calls that may have to be undone go on to their end, as beside a step that fails."""
        if not self._ending:
            self._ending = True
            left = self._loop.pending()
            if left:
                if not self._cancelled and isinstance(outcome_of(main, self._program.root), Failed):
                    self._ledger.let_end()
                for task in left:
                    _cancel(task)
                self._loop.turn()
                if self._loop.overrun:
                    self._fail(self._overrun())
                    return
        # What still awaits a cleanup of its own is waited for; what awaits nothing that could come is not.
        if self._ledger.open_slots and self._loop.pending():
            return
        self._end(outcome_of(main, self._program.root, self._ledger.drop_all()))

    def _fail(self, failure: Failure) -> None:
        # At once: what took too long here may be quick where it is replayed, and would not have failed there.
        self._end(Failed(failure, self._ledger.stop_all()))

    def _end(self, outcome: Outcome) -> None:
        self._outcome = outcome
        self._loop.sweep()  # an exception that nobody has asked a task for is logged
        self._loop.discard()

    def _overrun(self) -> Failure:
        site = self._loop.overrun
        if site == UNKNOWN:  # no line of the flow's was being run just then: one that gives way all the time
            site = self._waiting()
        message = (
            f"the flow ran for {TURN_S:g} s without waiting for anything, last at {site}; it was stopped, so "
            "that its worker can go on. End the loop that has no end, or move the work into a step"
        )
        return Failure(type="FlowOverrun", message=message, retryable=False, details={"at": site})

    def _stuck(self) -> Failure:
        message = (
            f"the flow waits at {self._waiting()}, but for nothing that can still come: no call, "
            "timer, signal or child is open. Is an Event never set, a Queue never filled, a Lock never freed?"
        )
        return Failure(type="FlowStuck", message=message, retryable=False)

    def _waiting(self) -> str:
        sites = [suspended_site(task.get_coro(), self._program.root) for task in self._loop.pending()]
        return "; ".join(sites[:SITES_SHOWN]) or UNKNOWN

    def _unknown(self, slot_id: str, slot: Slot | None) -> UnknownSlot:
        why = "never asks for it" if slot is None else f"has it as {slot.status} already"
        asked = ", ".join(self.asked()[-10:]) or "nothing"
        return UnknownSlot(
            f"{self._ledger.info.id}: slot {slot_id} is settled, but the flow {self._program.id} {why}; "
            f"it asked for, last: {asked}"
        )


def _cancel(task: FlowTask[Any]) -> None:
    """Cancel a task. One that awaits itself, by way of others, stays as it is: no exception can reach it."""
    with contextlib.suppress(RecursionError):
        task.cancel()
