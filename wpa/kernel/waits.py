"""Slots that wait: what is recorded when one opens, when it is over, and what an approval comes to."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from typing import Any, Final

from wpa.kernel.program import Approval, Want
from wpa.model.events import Failure
from wpa.model.ids import EXECUTION
from wpa.model.state import Signal, Slot, State
from wpa.model.times import parse_ms, rfc3339

__all__ = [
    "WAITING_FOR_SHOWN",
    "about",
    "allowed",
    "approval_of",
    "child_id",
    "due_ms",
    "in_time",
    "may_answer",
    "next_child_id",
    "replaces",
    "tally",
    "timed_out",
    "waiting_for",
]

WAITING_FOR_SHOWN: Final = 20
"""So many open slots the event of a resting execution names."""
MARK_CHARS: Final = 8
"""So much of a digest tells apart two ids that are spelled alike."""
NAME_CHARS: Final = 100
"""So much is left of a name that is too long."""
_NOT_IN_AN_ID = re.compile(r"[^A-Za-z0-9_-]")
_ONE_MEANING = re.compile(r"(?!(?:undo|retry\d+)(?::|$))[A-Za-z_]\w*(?::\d+)*(?::undo)?", re.ASCII)
"""Slots whose children's ids need no digest: no step's name with a hyphen, or like what follows a hyphen."""


def about(want: Want, state_key: str, now_ms: int) -> dict[str, Any] | None:
    """What the event that opens a slot says of it; None for a step that runs in the driver, unless it is one
    with which the program undoes something."""
    if want.kind == "step":
        undoes = {"undoes": want.undoes} if want.undoes else {}
        if not want.policy.queue:
            return {"kind": "step", **undoes} if undoes else None
        told: dict[str, Any] = {"kind": "remote", "uses": want.uses, "name": want.policy.queue, **undoes}
        if want.policy.deadline_ms is not None:
            told["until"] = rfc3339(now_ms + want.policy.deadline_ms)
        return told
    told = {"kind": want.kind, "uses": want.uses}
    wait = want.wait
    if wait is None:
        return told
    if wait.delay_ms is not None:
        told["until"] = rfc3339(now_ms + wait.delay_ms)
    elif wait.until:
        told["until"] = rfc3339(parse_ms(wait.until))
    if wait.signal:
        told["name"] = wait.signal
    if wait.child is not None:
        told["name"] = wait.child.execution or child_id(state_key, want.slot)
        if wait.child.detached or wait.child.on_cancel == "abandon":
            told["abandon"] = True
    return told


def child_id(parent_key: str, slot_id: str, attempt: int = 1) -> str:
    """The id of the execution that an attempt at a slot starts: always the same, and no other slot's.

    Read from its end, ``<parent>-<step>[-<n>][-undo][-retry<attempt>]`` has one meaning as long as the step
    has no hyphen. What could have two (a step ``ship-2`` beside the second item of ``ship``, the second run
    of ``order`` beside ``order-2``) ends in a digest of what is meant.
    """
    if "." not in parent_key and _ONE_MEANING.fullmatch(slot_id):
        return _spelled_id(parent_key, slot_id, attempt)
    name = _NOT_IN_AN_ID.sub("-", _spelled(parent_key, slot_id, attempt))
    digest = _digest(f"{parent_key}:{slot_id}:{attempt}")
    marked = f"{name}-{digest[:MARK_CHARS]}"
    return marked if EXECUTION.fullmatch(marked) else f"{name[:NAME_CHARS]}-{digest}"


def next_child_id(name: str, parent_key: str, slot_id: str, attempt: int) -> str:
    """The id of the execution that the attempt after ``attempt`` starts, whose own child was ``name``.

    Journals hold ids with two meanings, from before these got a digest: their like follow them. An id that
    the definition gave stays. ``name`` may be that of an earlier attempt, which later ones have waited for.
    """
    before, made = _naming(name, parent_key, slot_id, attempt)
    return made(parent_key, slot_id, attempt + 1) if before else name


def replaces(name: str, other: str, parent_key: str, slot_id: str, attempt: int) -> bool:
    """Whether, of the attempts up to ``attempt``, a later one's child has the id ``name`` than ``other``."""
    before, _ = _naming(other, parent_key, slot_id, attempt)
    return 0 < before < _naming(name, parent_key, slot_id, attempt)[0]


def _naming(name: str, parent_key: str, slot_id: str, attempt: int) -> tuple[int, Callable[..., str]]:
    """The attempt that ``name`` was made for, and how; 0 where the definition gave it."""
    for before in range(attempt, 0, -1):
        for made in (child_id, _spelled_id):
            if name == made(parent_key, slot_id, before):
                return before, made
    return 0, child_id


def _spelled_id(parent_key: str, slot_id: str, attempt: int) -> str:
    spelled = _spelled(parent_key, slot_id, attempt)
    name = _NOT_IN_AN_ID.sub("-", spelled)
    return name if EXECUTION.fullmatch(name) else f"{name[:NAME_CHARS]}-{_digest(spelled)}"


def _spelled(parent_key: str, slot_id: str, attempt: int) -> str:
    return f"{parent_key}:{slot_id}" + (f"-retry{attempt}" if attempt > 1 else "")


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=10).hexdigest()


def due_ms(slot: Slot, want: Want) -> int | None:
    """When something is to be done about an open wait though nobody says anything; None: never."""
    moments = [parse_ms(slot.until)] if slot.until else []
    approval = approval_of(want)
    if approval is not None and slot.escalations < len(approval.escalations):
        moments.append(parse_ms(slot.opened_at) + approval.escalations[slot.escalations].after_ms)
    return min(moments) if moments else None


def in_time(slot: Slot, signal: Signal) -> bool:
    """Whether a wait was not over yet when something was told. In a pause, both lie there until it ends."""
    return not slot.until or parse_ms(signal.at) <= parse_ms(slot.until)


def timed_out(want: Want, slot: Slot) -> Failure:
    """The failure of a wait that nothing came for."""
    what = f"signal {slot.name!r}" if slot.kind == "signal" else f"{slot.kind} {slot.name}".strip()
    if slot.kind == "remote":
        message = f"queue {slot.name!r} gave no result by the step's deadline, {slot.until}"
        return Failure(type="DeadlineExceeded", message=message, retryable=False)
    message = f"step {want.step}: no {what} by {slot.until}"
    return Failure(type="Timeout", message=message, retryable=False)


def waiting_for(state: State) -> list[dict[str, Any]]:
    """What an execution at rest waits for, as its event and its status show it."""
    shown = []
    for slot_id in state.open[:WAITING_FOR_SHOWN]:
        slot = state.slots[slot_id]
        told = {
            "slot": slot_id,
            "step": slot.step,
            "kind": "retry" if slot.retry_at else slot.kind,
            "until": slot.retry_at or slot.until,
            "name": slot.name,
        }
        shown.append({key: value for key, value in told.items() if value})
    return shown


# -- approvals -------------------------------------------------------------------------------


def approval_of(want: Want) -> Approval | None:
    """What is asked of people; None where nothing is, as of a want with a fault: nobody may answer then."""
    return None if want.wait is None else want.wait.approval


def allowed(approval: Approval, slot: Slot) -> tuple[set[str], set[str]]:
    """The users and the roles that may answer now, those of past escalations included."""
    users, roles = set(approval.users), set(approval.roles)
    for escalation in approval.escalations[: slot.escalations]:
        users.update(escalation.users)
        roles.update(escalation.roles)
    return users, roles


def may_answer(approval: Approval, slot: Slot, by: dict[str, Any]) -> bool:
    """Whether the person that ``by`` (a task's metadata) names may answer."""
    users, roles = allowed(approval, slot)
    if not approval.users and not approval.roles:
        return True
    return by.get("user_id") in users or bool(roles & set(by.get("roles") or ()))


def tally(approval: Approval, slot: Slot, answers: list[Signal]) -> dict[str, Any] | None:
    """What the answers come to: the verdict, or None where more are needed.

    They count in the order in which they came, until one decides: a rejection, or the last approval that was
    needed. Each person counts once, with the first answer in time; those who say no name count as one person.
    """
    counted: dict[str, dict[str, Any]] = {}
    for answer in answers:
        payload = answer.payload if isinstance(answer.payload, dict) else {}
        who = str(answer.by.get("user_id") or "")
        if who in counted or not in_time(slot, answer) or not may_answer(approval, slot, answer.by):
            continue
        approved = payload.get("approved") is True
        counted[who] = {
            "by": answer.by,
            "decision": "approved" if approved else "rejected",
            "comment": str(payload.get("comment") or ""),
            "at": answer.at,
        }
        if not approved or len(counted) >= approval.count:
            return {"approved": approved, "answers": list(counted.values())}
    return None
