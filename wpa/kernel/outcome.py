"""What the end of a program makes of its execution."""

from __future__ import annotations

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


def conclude(state: State, script: Script, outcome: Finished | Failed, now_ms: int) -> Draft | None:
    """The execution's end, or the begin of the compensation before it; None while something is open that the
    program has not dropped."""
    dropping = script.dropping
    if state.open and not (dropping and set(state.open) <= set(dropping)):
        return None
    if isinstance(outcome, Finished):
        data = {"output": outcome.output, "progress_percentage": 100}
        if dropping:
            data["dropped"] = list(dropping)
        return Draft(ev.COMPLETED, with_duration(state, data, now_ms), now_ms)
    undo = saga.compensable(state, script.run)
    if undo:
        return saga.begin(state, script.run, outcome.error, "", undo, now_ms)
    return saga.failed(state, outcome.error, "", [], now_ms)


def start_over(program: Program, state: State, outcome: Continued, now_ms: int) -> tuple[Script, Draft]:
    """The script of the next run, and the draft of the event with which it takes the place of this one."""
    info = msgspec.structs.replace(
        info_of(state), started_at=rfc3339(now_ms), recorded=(), replayed=0, rebuilt=False
    )
    following = Script(program.begin(outcome.input, state.variables, info), {})
    data: dict[str, Any] = {"input": outcome.input, "run": state.run + 1}
    open_into(data, following, [], program.max_parallel, f"{state.execution}.{state.run + 1}", now_ms)
    return following, Draft(ev.CONTINUED, data, now_ms)
