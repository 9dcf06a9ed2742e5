"""What is recorded in place of an event that has more bytes than the server takes in one message.

Some events grow with their execution: the one that begins a rollback names all that is to be undone. A turn
that can't be recorded would be tried for ever, so it is the last one: the execution ends, and says why. An
end names steps, too; where there is no room for all of them, it names some.
"""

from __future__ import annotations

from typing import Final

import msgspec

from wpa.kernel import saga
from wpa.kernel.draft import Draft
from wpa.kernel.program import Run
from wpa.model import events as ev
from wpa.model.events import Failure
from wpa.model.state import State

__all__ = ["NAMES_MAX", "end_instead", "fewer_names"]

NAMES_MAX: Final = 100
"""So many steps of each kind an end names where there is no room for all."""
ENDS: Final = frozenset({ev.FAILED, ev.ROLLED_BACK, ev.CANCELLED})


def end_instead(draft: Draft, state: State, run: Run, why: str) -> Draft | None:
    """The end to record instead of ``draft``; None where that is as short an end as there is.

    Args:
        draft: what is too large.
        state: as it is without it.
        run: says what of it could have been undone.
        why: how large it is, and what is taken.
    """
    if draft.event in ENDS:
        return fewer_names(draft)
    step = draft.data.get("step")
    what = f"{draft.event} of {step}" if step else draft.event
    error = Failure(type="OverLimit", message=f"{what} can't be recorded: {why}", retryable=False)
    undoing = state.status == "COMPENSATING"
    standing = saga.standing(state, run)
    # Whoever is paused may be cancelled, and can't fail.
    if state.status == "PAUSED" or (state.cancel is not None and not undoing):
        return saga.cancelled(state, standing, draft.at_ms, error)
    return saga.failed(state, error, state.failed_step, standing, draft.at_ms)


def fewer_names(draft: Draft) -> Draft | None:
    """An end that names the first ``NAMES_MAX`` steps of each kind, and tells how many there are.

    None where it names no more than that already.
    """
    lists = {key: draft.data.get(key, []) for key in ("undone", "not_undone")}
    long = {key: names for key, names in lists.items() if len(names) > NAMES_MAX}
    if draft.event not in ENDS or not long:
        return None
    told = ", ".join(
        f"{key} has {len(names)} names, of which these are {NAMES_MAX}" for key, names in long.items()
    )
    error: Failure = draft.data.get("error") or Failure(type="OverLimit", message="", retryable=False)
    error = msgspec.structs.replace(error, message=f"{error.message}; {told}" if error.message else told)
    shortened = {key: names[:NAMES_MAX] for key, names in long.items()}
    return Draft(draft.event, {**draft.data, **shortened, "error": error}, draft.at_ms)
