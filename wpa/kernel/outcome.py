"""What the end of a program makes of its execution."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from typing import Any

import msgspec

from wpa.kernel import saga
from wpa.kernel.draft import Draft, with_duration
from wpa.kernel.opening import open_into
from wpa.kernel.program import Continued, Failed, Finished, Program
from wpa.kernel.script import Script
from wpa.kernel.telling import info_of
from wpa.model import events as ev
from wpa.model.state import State
from wpa.model.times import rfc3339

__all__ = ["conclude", "start_over"]


def conclude(
    state: State, script: Script, outcome: Finished | Failed, busy: Collection[str], now_ms: int
) -> Draft | None:
    """The execution's end, or the begin of the compensation before it.

    None while something is open that the program has not dropped. Where it has failed, only work that is
    under way is waited for, here (``busy``, too) or in another worker: it may have to be undone.
    """
    dropping = script.dropping
    left = set(state.open).difference(dropping)
    if isinstance(outcome, Finished):
        if left:
            return None
        data = {"output": outcome.output, "progress_percentage": 100}
        if dropping:
            data["dropped"] = list(dropping)
        return Draft(ev.COMPLETED, with_duration(state, data, now_ms), now_ms)
    if any(state.slots[slot_id].under_way or slot_id in busy for slot_id in left):
        return None
    undo = saga.compensable(state, script.run)
    if undo:
        return saga.begin(state, script.run, outcome.error, "", undo, now_ms)
    return saga.failed(state, outcome.error, "", [], now_ms)


def start_over(program: Program, state: State, outcome: Continued, now_ms: int) -> tuple[Script, Draft]:
    """The script of the next run, and the draft of the event with which it takes the place of this one."""
    run, seed = state.run + 1, ""
    if state.seed:  # or chance would repeat itself; derived, so that it is the same whoever decides
        seed = hashlib.blake2b(f"{state.seed}.{run}".encode(), digest_size=16).hexdigest()
    info = msgspec.structs.replace(
        info_of(state),
        started_at=rfc3339(now_ms),
        seed=seed,
        taken_seeds=(),
        recorded=(),
        replayed=0,
        rebuilt=False,
    )
    following = Script(program.begin(outcome.input, state.variables, info), {})
    following.begin()
    data: dict[str, Any] = {"input": outcome.input, "run": run}
    if seed:
        data["seed"] = seed
    open_into(data, following, [], program.max_parallel, f"{state.execution}.{run}", now_ms)
    return following, Draft(ev.CONTINUED, data, now_ms)
