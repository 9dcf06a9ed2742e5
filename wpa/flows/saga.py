"""Compensation inside a flow: ``async with saga():``."""

from __future__ import annotations

from contextvars import ContextVar
from types import TracebackType
from typing import Final

from wpa.errors import StepFailed
from wpa.flows.errors import Discarded
from wpa.flows.ledger import UNDO_POLICY, Slot
from wpa.flows.loop import current
from wpa.flows.outcome import ContinueAsNew, alone

__all__ = ["Saga", "saga", "saga_now"]

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
        for slot in reversed(self._done):
            step = f"undo_{slot.want.step}"[:64]
            undoing = loop.ledger.open(
                step, "step", slot.undo, inputs=slot.undo_inputs(), policy=UNDO_POLICY, trim=True
            )
            settled = await loop.settled(undoing)
            if settled.status == "failed":
                why = settled.error.message if settled.error else ""
                message = f"{step} gave up ({why}), after {type(reason).__name__}: {reason}"
                raise StepFailed(message, type="CompensationFailed", retryable=False) from reason
            slot.undone = True


def saga() -> Saga:
    """A block of calls that are undone together.

    An exception that leaves the block undoes the calls completed inside it that were given an ``undo``,
    last first, each as a durable step of its own (``undo_<step>``, up to 10 attempts), and goes on. What was
    undone here is not undone once more when the execution fails. A call that was still running when the
    exception came is not undone here unless it has completed by then: start such calls in an
    ``asyncio.TaskGroup``, which cancels them.

    Raises StepFailed of type ``CompensationFailed``, from the exception, where an undo step gives up; what
    was to be undone after it is then left to the execution's own compensation.
    """
    return Saga()


def saga_now() -> Saga | None:
    """The innermost saga that the running code is inside of."""
    return _SAGA.get()
