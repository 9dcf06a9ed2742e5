"""Compensation inside a flow: ``async with saga():``."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from types import TracebackType
from typing import Final

from wpa.errors import StepFailed
from wpa.flows.errors import Discarded
from wpa.flows.ledger import Slot
from wpa.flows.loop import FlowLoop, current
from wpa.flows.outcome import ContinueAsNew, alone
from wpa.kernel.program import Settled

__all__ = ["Saga", "saga", "saga_now"]

TO_ITS_END: Final = "wpa.flows.saga: undone to its end"
"""A change like those of flows: journals of before tell of undo steps that a cancel has dropped."""

_SAGA: Final[ContextVar[Saga | None]] = ContextVar("wpa_saga", default=None)


class Saga:
    """The calls completed inside one ``async with saga():``, tasks started inside included."""

    def __init__(self) -> None:
        self._around: Saga | None = None
        self._done: list[Slot] = []
        self._over = False

    def completed(self, slot: Slot) -> None:
        """A call that can be undone has completed. After the block's end, it is the next one's around."""
        if not self._over:
            self._done.append(slot)
        elif self._around is not None:
            self._around.completed(slot)

    async def __aenter__(self) -> None:
        current("saga()")
        self._around = _SAGA.get()
        _SAGA.set(self)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        _SAGA.set(self._around)
        self._over = True
        if error is not None and not isinstance(alone(error), (ContinueAsNew, Discarded, GeneratorExit)):
            if current("saga()").ledger.compensates:
                await self._undo(error)
        elif self._around is not None:
            for slot in self._done:
                self._around.completed(slot)

    async def _undo(self, reason: BaseException) -> None:
        loop = current("saga()")
        cancelled: asyncio.CancelledError | None = None
        for slot in reversed(self._done):
            if cancelled is not None and not loop.ledger.compensates:
                break  # it was asked for that nothing more be undone
            step = f"undo_{slot.want.step}"[:64]
            undoing = loop.ledger.open(
                step,
                "step",
                slot.undo,
                inputs=slot.undo_inputs(),
                policy=slot.undo_policy(),
                trim=True,
                undoes=slot.want.slot,
            )
            settled, came = await _settled(loop, undoing)
            cancelled = cancelled or came
            if settled.status == "failed":
                why = settled.error.message if settled.error else ""
                message = f"{step} gave up ({why}), after {type(reason).__name__}: {reason}"
                failed = StepFailed(message, type="CompensationFailed", retryable=False)
                if cancelled is None:
                    raise failed from reason
                failed.__cause__ = reason
                raise cancelled from failed
            slot.undone = True
        if cancelled is not None:
            raise cancelled


async def _settled(loop: FlowLoop, undoing: Slot) -> tuple[Settled, asyncio.CancelledError | None]:
    """The end of an undo step, which a cancel does not cut short: the execution's own compensation would undo
    the same once more, under another key."""
    if loop.ledger.patched(TO_ITS_END):
        return await loop.settled_in_any_case(undoing)
    return await loop.settled(undoing), None


def saga() -> Saga:
    """A block of calls that are undone together.

    An exception that leaves the block undoes the calls completed inside it that were given an ``undo``,
    last first, each as a durable step of its own (``undo_<step>``, up to 10 attempts), and goes on. What was
    undone here is not undone once more when the execution fails. A call that was still running when the
    exception came is not undone here unless it has completed by then: start such calls in an
    ``asyncio.TaskGroup``, which cancels them, or, shielded from that, lets the execution undo them when they
    have ended and the exception leaves the flow.

    Raises StepFailed of type ``CompensationFailed``, from the exception, where an undo step gives up; what
    was to be undone after it is then left to the execution's own compensation. A cancel, or a time-out around
    it, that comes while it undoes is raised when all is undone.
    """
    return Saga()


def saga_now() -> Saga | None:
    """The innermost saga that the running code is inside of."""
    return _SAGA.get()
