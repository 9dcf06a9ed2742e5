"""The forms of what a snapshot holds: slots, failures, cancels; with every field, or without what is empty."""

from __future__ import annotations

from typing import Any, Final

__all__ = ["Slot", "cancel", "failure", "new_slot", "normal"]

Body = dict[str, Any]

Slot = Body
"""As it is in the snapshot, with every field."""


def failure(told: Any) -> Body:
    """Why something failed, with every field."""
    told = told or {}
    plain = {"type": told.get("type", ""), "message": told.get("message", "")}
    return {**plain, "retryable": told.get("retryable", True), "details": told.get("details") or {}}


def new_slot(slot_id: str, opened_at: str) -> Slot:
    """A slot as it is opened."""
    return {
        "id": slot_id, "kind": "step", "status": "open", "uses": "", "attempt": 1, "failures": 0, "lost": 0,
        "opened_at": opened_at, "started_at": "", "finished_at": "", "retry_at": "", "until": "", "name": "",
        "escalations": 0, "abandon": False, "undoes": "", "output": None, "error": None,
    }  # fmt: skip


def cancel(data: Body, *, compensate: bool) -> Body:
    """A cancel, as the event that asks for it says."""
    return {"compensate": compensate, "reason": data.get("reason", ""), "by": data.get("by") or {}}


_CANCEL: Final = cancel({}, compensate=True)
_SIGNAL: Final[Body] = {"name": "", "payload": None, "slot": "", "by": {}, "at": ""}


def normal(state: Body) -> Body:
    """A snapshot without what is empty, or the default, so that two ways to write the same are equal."""
    found = {key: value for key, value in state.items() if value not in ("", None, [], {}, 0, False)}
    for key in ("input", "output"):
        if state.get(key) is not None:
            found[key] = state[key]
    found.setdefault("epoch", 1)
    found.setdefault("run", 1)
    found.pop("format", None)  # for the engine's own versions to tell each other apart
    found.setdefault("status", "RUNNING")
    slots = state.get("slots", {})
    found["slots"] = {slot_id: _plain({**new_slot("", ""), **slot}) for slot_id, slot in slots.items()}
    found["signals"] = [{**_SIGNAL, **signal} for signal in state.get("signals", ())]
    for key in ("error", "blocked"):
        if state.get(key):
            found[key] = failure(state[key])
    if state.get("cleanup") is not None:
        found["cleanup"] = {"after": 0, "compensate": True, **state["cleanup"]}
    if state.get("cancel") is not None:
        found["cancel"] = {**_CANCEL, **state["cancel"]}
    return found


def _plain(slot: Slot) -> Slot:
    return {**slot, "error": failure(slot["error"]) if slot.get("error") else None}
