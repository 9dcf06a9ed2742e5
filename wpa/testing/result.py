"""How an execution ended, as a test looks at it."""

from __future__ import annotations

from typing import Any

import msgspec

from wpa.model.events import Event, Failure
from wpa.model.state import Slot, State
from wpa.model.times import parse_ms
from wpa.testing.catalog import Call
from wpa.testing.journal import as_text

__all__ = ["Result"]


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """An execution that has ended, as it is recorded."""

    execution: str
    status: str
    """COMPLETED, FAILED, ROLLED_BACK or CANCELLED."""
    output: Any
    error: Failure | None
    failed_step: str
    undone: list[str]
    """The steps that were compensated, in that order."""
    not_undone: list[str]
    steps: dict[str, Slot]
    """Every slot by its id: ``charge``, the second time ``charge:2``, its compensation ``charge:undo``."""
    events: list[Event]
    """The journal."""
    calls: list[Call]
    """Every attempt at a step, in the order in which they were begun."""
    crash_points: tuple[str, ...] = ()
    """With ``crash_everywhere``: all the points at which a worker was made to die, once each."""

    @classmethod
    def of(cls, state: State, output: Any, events: list[Event], calls: list[Call]) -> Result:
        """The result that a folded state and its journal make."""
        return cls(
            execution=state.execution,
            status=state.status,
            output=output,
            error=state.error,
            failed_step=state.failed_step,
            undone=list(state.undone),
            not_undone=list(state.not_undone),
            steps=dict(state.slots),
            events=events,
            calls=calls,
        )

    @property
    def duration_ms(self) -> int:
        """From the first event to the last, in milliseconds of the environment's time."""
        return parse_ms(self.events[-1].timestamp) - parse_ms(self.events[0].timestamp)

    @property
    def journal(self) -> str:
        """The journal as text, one line an event."""
        return as_text(self.events)

    def __repr__(self) -> str:
        return f"<Result {self._headline}>"

    def __str__(self) -> str:
        return f"{self._headline}\n{self.journal}"

    @property
    def _headline(self) -> str:
        error = f", {self.error.type}: {self.error.message}" if self.error else ""
        return f"{self.execution}: {self.status}{error}"
