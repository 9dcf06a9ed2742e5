"""The program's side of an execution: what is wanted, what may be opened next, and how it ended.

A :class:`Script` follows one :class:`wpa.kernel.program.Run`. It tells the run what was settled, takes in
what the run wants after that, and keeps the wants apart by what is to become of them: steps wait for room,
waits open at once, and what needs no running (decisions, faults) is recorded straight away.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from wpa.kernel.program import CleansUp, Failed, Outcome, Run, Settled, Waiting, Want
from wpa.model.events import Failure
from wpa.model.state import Slot

__all__ = ["Script"]


class Script:
    """Not thread-safe. Everything here can be rebuilt from the journal. Before :meth:`begin`, nothing is
    wanted.

    Args:
        run: the program's pass.
        slots: those that exist already, where the run is being rebuilt. What has a slot is neither to be
            opened nor to be derived.
    """

    def __init__(self, run: Run, slots: Mapping[str, Slot]) -> None:
        self.run = run
        self.cleaner: CleansUp | None = run if isinstance(run, CleansUp) else None
        """The run, if it is to be told that its execution ends early."""
        self._slots = slots
        self.wants: dict[str, Want] = {}
        """Everything wanted and not settled, undo slots included."""
        self.outcome: Outcome = Waiting()
        self.derived: list[str] = []
        """Wanted slots that need no running: decisions and faults."""
        self.dropping: list[str] = []
        """Slots that are wanted no more, which no event has said yet."""
        self.recorded: list[Any] = []
        """Values that the program came by, which no event has kept yet."""
        self._steps: list[str] = []
        """Wanted steps that are not open yet, in program order."""
        self._priorities: set[int] = set()
        """All that steps were wanted with."""
        self._waits: list[str] = []
        """Wanted waits that are not open yet."""
        self._begun = False

    def begin(self) -> None:
        """Ask the run for the first time what it wants. Does nothing where that was done."""
        if not self._begun:
            self._begun = True
            self.absorb()

    def tell(
        self, slot_id: str, status: Any, value: Any = None, error: Failure | None = None, at_ms: int = 0
    ) -> None:
        """Settle a wanted slot in the run, and take in what the run wants now."""
        del self.wants[slot_id]
        self.run.settle(Settled(slot=slot_id, status=status, value=value, error=error, at_ms=at_ms))
        self.absorb()

    def cancel(self, at_ms: int, *, compensate: bool) -> None:
        """Tell a run that cleans up that its execution is to end, and take in what it wants now."""
        if self.cleaner is not None:
            self.cleaner.cancel(at_ms, compensate=compensate)
            self.absorb()

    def absorb(self) -> None:
        """Take in what is new since the last poll."""
        outcome = self.outcome = self.run.poll()
        for slot_id in outcome.dropped:
            self._drop(slot_id)
        if outcome.recorded:
            self.recorded.extend(outcome.recorded)
        if isinstance(outcome, Waiting | Failed):
            for slot_id in outcome.left:
                if slot_id in self._steps:
                    self._drop(slot_id)
        if not isinstance(outcome, Waiting):
            return
        for want in outcome.wants:
            self.wants[want.slot] = want
            if want.slot in self._slots:
                continue
            if want.kind == "decision" or want.fault is not None:
                self.derived.append(want.slot)
            elif want.kind == "step":
                self._steps.append(want.slot)
                self._priorities.add(want.policy.priority)
            else:
                self._waits.append(want.slot)

    def _drop(self, slot_id: str) -> None:
        self.wants.pop(slot_id, None)
        for ready in (self._steps, self._waits, self.derived):
            if slot_id in ready:
                ready.remove(slot_id)
                return
        slot = self._slots.get(slot_id)
        if slot is None or slot.status == "open":
            self.dropping.append(slot_id)

    # -- opening -----------------------------------------------------------------------------

    def choose(self, running: list[str], room: int) -> list[str]:
        """``running`` and what opens beside it: every wait, and ``room`` steps, the most urgent first."""
        steps = self._steps
        if len(steps) > room:
            if len(self._priorities) > 1:
                # sorted() is stable: equal priorities keep the program's order.
                steps = sorted(steps, key=lambda slot_id: -self.wants[slot_id].policy.priority)
            steps = steps[: max(0, room)]
        if not steps and not self._waits:
            return running
        return [*running, *self._waits, *steps]

    @property
    def ready(self) -> bool:
        """Whether there is anything to open, where there is room."""
        return bool(self._steps or self._waits)

    def can_open(self, room: int) -> bool:
        """Whether :meth:`choose` would open anything."""
        return bool(self._waits) or (room > 0 and bool(self._steps))

    def undoes_any(self, running: list[str]) -> bool:
        """Whether the program itself is undoing something in one of the slots that are open."""
        return any(slot_id in self.wants and self.wants[slot_id].undoes for slot_id in running)

    def opened(self, slot_id: str) -> None:
        """A slot is open now: it is not to be chosen again."""
        for ready in (self._steps, self._waits):
            if slot_id in ready:
                ready.remove(slot_id)
                return
