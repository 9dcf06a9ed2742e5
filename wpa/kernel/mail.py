"""What open waits get: signals, answers, the ends of children and remote steps, and the end of their time."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import msgspec

from wpa.kernel import waits
from wpa.kernel.program import Want
from wpa.model.events import Failure
from wpa.model.state import Signal, Slot, State
from wpa.model.times import parse_ms, rfc3339

__all__ = ["CHILD_FAILED", "Found", "Mail", "done_elsewhere"]

NEVER: Final = 1 << 62
CHILD_FAILED: Final = "ChildFailed"
"""The type of the failure of a slot whose child has said that it failed."""


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """Something for an open wait. ``output`` as the journal keeps it, unless it is the wait's ``default``."""

    slot: str
    output: Any = None
    default: bool = False
    error: Failure | None = None
    signals: tuple[str, ...] = ()
    """The ids of the signals that are used up by it."""
    started_ms: int = 0
    told: dict[str, Any] = msgspec.field(default_factory=dict)
    escalated: dict[str, Any] | None = None
    """Nothing is settled: from now on, these may answer, too."""


class Mail:
    """Looks through the mailbox and the clock only when there may be something new."""

    def __init__(self) -> None:
        self.waiting = False
        """Whether any wait is open."""
        self._open: list[str] = []
        self._dirty = False
        self._first = ""
        """The open wait that is over first, at ``_due_ms``."""
        self._due_ms = NEVER

    def look_again(self, state: State, wants: dict[str, Want]) -> None:
        """Something was told, opened or settled. What is open and not wanted is about to be dropped."""
        slots = state.slots
        self._open = [slot_id for slot_id in state.open if slots[slot_id].kind != "step" and slot_id in wants]
        self.waiting = self._dirty = bool(self._open)

    def take(self, state: State, wants: dict[str, Want], now_ms: int) -> Found | None:
        """The next thing for an open wait, or None.

        What has been told comes first; what became due meanwhile follows in the order of its moments.
        """
        if self._dirty:
            found = self._told(state, wants)
            if found is not None:
                return found
            # min() is stable: of those with the same moment, the one that was opened first.
            self._first = min(self._open, key=lambda slot_id: self._due(state, wants, slot_id))
            self._due_ms = self._due(state, wants, self._first)
            self._dirty = False
        if now_ms < self._due_ms:
            return None
        return _overdue(state.slots[self._first], wants[self._first], now_ms)

    def take_work(self, state: State, wants: dict[str, Want], now_ms: int, *, done: bool) -> Found | None:
        """The next end of work that others do: all that an execution on its way to its end still takes.

        What a child or a step elsewhere has come to, or that a step elsewhere has not come to an end in time.
        ``done``: only what has succeeded; a failure would be another reason to end, and wait for what was
        stopped for the first one.
        """
        if not self.waiting:
            return None
        slots = state.slots
        for slot_id in self._open:
            if slots[slot_id].kind == "child" and _is_detached(wants[slot_id]):
                return _detached(slots[slot_id])
        for signal in state.signals:
            found = _result(slots[signal.slot], signal) if signal.slot in self._open else None
            if found is not None and not (done and found.error is not None):
                return found
        for slot_id in () if done else self._open:
            if slots[slot_id].under_way and self._due(state, wants, slot_id) <= now_ms:
                return _overdue(slots[slot_id], wants[slot_id], now_ms)
        return None

    def due_ms(self, state: State, wants: dict[str, Want], *, only_work: bool = False) -> int | None:
        """When the first of the open waits is over by itself; None: never. ``only_work``: of those for steps
        that are made elsewhere."""
        if not self.waiting:
            return None
        waits = [slot_id for slot_id in self._open if not only_work or state.slots[slot_id].under_way]
        due = min((self._due(state, wants, slot_id) for slot_id in waits), default=NEVER)
        return None if due == NEVER else due

    def due_again(self, state: State, now_ms: int) -> list[str]:
        """The remote steps whose next attempt is due."""
        if not self.waiting:
            return []
        now = rfc3339(now_ms)
        again = (state.slots[slot_id] for slot_id in self._open)
        return [slot.id for slot in again if slot.retry_at and slot.retry_at <= now]

    @staticmethod
    def _due(state: State, wants: dict[str, Want], slot_id: str) -> int:
        due = waits.due_ms(state.slots[slot_id], wants[slot_id])
        return NEVER if due is None else due

    # -- the mailbox -------------------------------------------------------------------------

    def _told(self, state: State, wants: dict[str, Want]) -> Found | None:
        by_name: dict[str, list[Slot]] = {}
        answers: dict[str, list[Signal]] = {}
        for slot_id in self._open:
            slot = state.slots[slot_id]
            if slot.kind == "signal":
                by_name.setdefault(slot.name, []).append(slot)
            elif slot.kind == "child" and _is_detached(wants[slot_id]):
                return _detached(slot)
        for signal in state.signals:
            if not signal.slot:
                if (found := _named(by_name.get(signal.name, ()), signal)) is not None:
                    return found
            elif signal.slot in self._open:
                slot = state.slots[signal.slot]
                if slot.kind == "approval":
                    answers.setdefault(slot.id, []).append(signal)
                elif (found := _result(slot, signal)) is not None:
                    return found
        for slot_id, given in answers.items():
            approval = waits.approval_of(wants[slot_id])
            verdict = approval and waits.tally(approval, state.slots[slot_id], given)
            if verdict is not None:
                return Found(slot=slot_id, output=verdict, signals=tuple(signal.id for signal in given))
        return None


def done_elsewhere(state: State) -> list[str]:
    """The open slots for which others have reported that the work is done, and nobody has heard of it yet."""
    slots = state.slots
    told = ((slots.get(signal.slot), signal) for signal in state.signals if signal.slot)
    results = (_result(slot, signal) for slot, signal in told if slot is not None and slot.status == "open")
    return [found.slot for found in results if found is not None and found.error is None]


def _named(waiting: Iterable[Slot], signal: Signal) -> Found | None:
    """A signal for the first that waits for its name, and waited still when it came."""
    slot = next((slot for slot in waiting if waits.in_time(slot, signal)), None)
    if slot is None:
        return None
    told = {"signal": signal.name, "by": signal.by}
    return Found(slot=slot.id, output=signal.payload, signals=(signal.id,), told=told)


def _is_detached(want: Want) -> bool:
    return want.wait is not None and want.wait.child is not None and want.wait.child.detached


def _detached(slot: Slot) -> Found:
    return Found(slot=slot.id, output={"execution_id": slot.name})


def _result(slot: Slot, signal: Signal) -> Found | None:
    """The end of a child, or of an attempt elsewhere; None for one that is out of date."""
    payload = signal.payload if isinstance(signal.payload, dict) else {}
    if slot.kind == "remote":
        if payload.get("attempt") != slot.attempt:
            return None
        error = payload.get("error")
        return Found(
            slot=slot.id,
            output=payload.get("output"),
            error=msgspec.convert(error, Failure) if error else None,
            signals=(signal.id,),
            started_ms=parse_ms(payload["started_at"]) if payload.get("started_at") else 0,
            told={"worker": signal.by.get("worker", "")},
        )
    if slot.kind != "child":
        return None
    status = payload.get("status", "")
    if status == "COMPLETED":
        return Found(slot=slot.id, output=payload.get("output"), signals=(signal.id,))
    error = payload.get("error") or {}
    reason = f"{error.get('type', status)}: {error.get('message', '')}".rstrip(": ")
    how = f"execution {slot.name} ended {status}: {reason}"
    if status == "REJECTED" and error.get("type") == "conflict":
        how = f"the id that its child was to have is taken: {error.get('message', '')}"
    failure = Failure(
        type=CHILD_FAILED,
        message=how,
        retryable=False,
        details={"execution": slot.name, "status": status, "error": error},
    )
    return Found(slot=slot.id, error=failure, signals=(signal.id,))


# -- the clock -------------------------------------------------------------------------------


def _overdue(slot: Slot, want: Want, now_ms: int) -> Found:
    if slot.until and parse_ms(slot.until) <= now_ms:
        if slot.kind == "timer":
            return Found(slot=slot.id)
        if want.wait is not None and want.wait.has_default:
            return Found(slot=slot.id, output=want.wait.default, default=True, told={"timed_out": True})
        return Found(slot=slot.id, error=waits.timed_out(want, slot), told={"timed_out": True})
    approval = waits.approval_of(want)
    assert approval is not None  # noqa: S101  nothing else is due before the end
    escalation = approval.escalations[slot.escalations]
    return Found(slot=slot.id, escalated={"users": list(escalation.users), "roles": list(escalation.roles)})
