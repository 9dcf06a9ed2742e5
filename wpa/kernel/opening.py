"""What may begin now: the part of an event that says which slots are open from it on."""

from __future__ import annotations

from typing import Any

from wpa.kernel import waits
from wpa.kernel.script import Script
from wpa.model.state import State

__all__ = ["held", "open_into", "room_beside"]


def held(state: State) -> bool:
    """Whether nothing new may begin."""
    ends = state.cancel is not None and state.cleanup is None
    return bool(state.failing) or ends or state.status == "PAUSED"


def room_beside(state: State, running: list[str], max_parallel: int, waiting: bool) -> int:
    """How many steps may begin beside what runs; waits need no room.

    ``waiting``: whether any wait is open at all, so that most needn't look.
    """
    if not waiting:
        return max_parallel - len(running)
    return max_parallel - sum(state.slots[slot_id].kind in ("step", "remote") for slot_id in running)


def open_into(
    data: dict[str, Any], script: Script, running: list[str], room: int | None, key: str, now_ms: int
) -> None:
    """Into an event's ``data``: what is open after it, what the program dropped, and what it came by.

    Args:
        data: gets ``next``, and where there are any ``waits``, ``dropped`` and ``recorded``.
        script: what is wanted.
        running: what is open already and stays so.
        room: how many steps may begin; None: nothing may, no wait either.
        key: what the ids of children are made from.
        now_ms: when the slots are opened.
    """
    if script.dropping:
        data["dropped"] = list(script.dropping)
        running = [slot_id for slot_id in running if slot_id not in script.dropping]
    chosen = running if room is None else script.choose(running, room)
    data["next"] = chosen
    told = {}
    for slot_id in chosen[len(running) :]:
        about = waits.about(script.wants[slot_id], key, now_ms)
        if about is not None:
            told[slot_id] = about
    if told:
        data["waits"] = told
    if script.recorded:
        data["recorded"] = [*data.get("recorded", ()), *script.recorded]
