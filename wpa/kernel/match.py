"""Does the program still ask for what the journal says was done? If not: what is the difference?"""

from __future__ import annotations

from typing import Final

from wpa.errors import CodeMissing
from wpa.kernel.program import Program, Want
from wpa.kernel.script import Script
from wpa.model.state import Slot, State

__all__ = ["Diverged", "check_open", "check_pinned", "check_settled"]


_CHANGED_PLAN: Final = (
    "definition",
    "a version fits if every step that has begun keeps its id, its kind and its step type",
)
_CHANGED_FLOW: Final = (
    "code",
    "put the code back that this execution was started with, or guard the change with patched()",
)
"""What was changed, and what to do about it."""
_CHANGED_NOTHING: Final = (
    "code",
    (
        "it is the code that this execution was started with: what it asks for depends on something that "
        "is not recorded, such as the order of a set of strings (sort it), a global, an environment "
        "variable, or a function elsewhere that was changed (put it back, or guard the change with patched())"
    ),
)
_TAKES_LESS: Final = "rerun it from an earlier step, or from its beginning"


class Diverged(CodeMissing):
    """The program doesn't ask for what the journal says was done."""


def check_pinned(program: Program, state: State) -> None:
    """A pinned program goes on only with executions of its very own content."""
    if program.pinned and program.hash != state.definition_hash:
        raise Diverged(
            f"{state.tenant}.{state.execution} runs definition {state.definition_hash[:12]}, "
            f"not {program.hash[:12]}: {state.workflow} {state.version} was changed in place"
        )


def check_settled(program: Program, script: Script, state: State | None, slot: Slot) -> None:
    """A settled slot must be wanted by the time it is told, and be the same work. A rerun that begins has no
    ``state`` yet."""
    want = script.wants.get(slot.id)
    if want is None or (slot.uses and want.uses != slot.uses):
        raise Diverged(_difference(program, script, state, slot))
    if slot.status == "decided" and want.kind != "decision":
        raise Diverged(_difference(program, script, state, slot))


def check_open(program: Program, script: Script, state: State) -> None:
    """After all that is settled: what is open must still be wanted, or be dropped by now; and what was
    dropped must not be wanted again, for nobody would ever settle it."""
    for slot_id in script.wants:
        slot = state.slots.get(slot_id)
        if slot is not None and slot.status == "cancelled":
            raise Diverged(_difference(program, script, state, slot))
    for slot_id in state.open:
        slot = state.slots[slot_id]
        if slot_id in script.dropping:
            continue
        want = script.wants.get(slot_id)
        if want is None or not _goes_on(slot, want):
            raise Diverged(_difference(program, script, state, slot))


def _goes_on(slot: Slot, want: Want) -> bool:
    """Whether what is wanted is what the open slot was opened for: the next attempt at it has its key."""
    if want.fault is not None or slot.kind != _kind(want):  # what has a fault is never opened
        return False
    if slot.kind == "signal":  # its mail is found by the name that was recorded
        return want.wait is not None and want.wait.signal == slot.name
    return not slot.uses or slot.uses == want.uses  # a step that has not begun has none


def _kind(want: Want) -> str:
    """The kind of the slot that is opened for a want."""
    return "remote" if want.kind == "step" and want.policy.queue else want.kind


def _difference(program: Program, script: Script, state: State | None, slot: Slot) -> str:
    """What was recorded, and what the program asks for now, as lines of a diff."""
    want = script.wants.get(slot.id)
    asked = [want] if want is not None else list(script.wants.values())[:10]
    sites = {view.slot: f" at {view.site}" for view in script.run.steps() if view.site}
    now = ", ".join(f"{_asked(one)}{sites.get(one.slot, '')}" for one in asked)
    what, remedy = _CHANGED_PLAN if program.pinned else _CHANGED_FLOW
    if state is None:
        remedy = _TAKES_LESS
    elif not program.pinned and program.hash == state.definition_hash:
        what, remedy = _CHANGED_NOTHING
    recorded = "decision" if slot.status == "decided" else slot.kind
    awaited = f" for {slot.name}" if slot.kind == "signal" else ""
    return (
        f"the {what} of {program.id} {program.version} does not ask for what the journal says was done\n"
        f"- recorded: {recorded} {slot.id} ({slot.uses or 'no step type'}), {slot.status}{awaited}\n"
        f"+ asked now: {now or 'nothing more'}\n"
        f"{remedy}"
    )


def _asked(want: Want) -> str:
    fails = f", which fails: {want.fault.message}" if want.fault is not None else ""
    awaited = f" for {want.wait.signal}" if want.wait is not None and want.wait.signal else ""
    return f"{_kind(want)} {want.slot} ({want.uses or 'no step type'}){awaited}{fails}"
