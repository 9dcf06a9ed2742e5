"""Does the program still ask for what the journal says was done? If not: what is the difference?"""

from __future__ import annotations

from typing import Final

from wpa.errors import CodeMissing
from wpa.kernel.program import Program
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


class Diverged(CodeMissing):
    """The program doesn't ask for what the journal says was done."""


def check_pinned(program: Program, state: State) -> None:
    """A pinned program goes on only with executions of its very own content."""
    if program.pinned and program.hash != state.definition_hash:
        raise Diverged(
            f"{state.tenant}.{state.execution} runs definition {state.definition_hash[:12]}, "
            f"not {program.hash[:12]}: {state.workflow} {state.version} was changed in place"
        )


def check_settled(program: Program, script: Script, state: State, slot: Slot) -> None:
    """A settled slot must be wanted by the time it is told, and be the same work."""
    want = script.wants.get(slot.id)
    if want is None or (slot.uses and want.uses != slot.uses):
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
        if want is None or (slot.kind not in ("step", "remote") and slot.kind != want.kind):
            raise Diverged(_difference(program, script, state, slot))


def _difference(program: Program, script: Script, state: State, slot: Slot) -> str:
    """What was recorded, and what the program asks for now, as lines of a diff."""
    want = script.wants.get(slot.id)
    asked = [want] if want is not None else list(script.wants.values())[:10]
    sites = {view.slot: f" at {view.site}" for view in script.run.steps() if view.site}
    now = ", ".join(f"{one.kind} {one.slot} ({one.uses}){sites.get(one.slot, '')}" for one in asked)
    what, remedy = _CHANGED_PLAN if program.pinned else _CHANGED_FLOW
    if not program.pinned and program.hash == state.definition_hash:
        what, remedy = _CHANGED_NOTHING
    return (
        f"the {what} of {program.id} {program.version} does not ask for what the journal says was done\n"
        f"- recorded: {slot.kind} {slot.id} ({slot.uses or 'no step type'}), {slot.status}\n"
        f"+ asked now: {now or 'nothing more'}\n"
        f"{remedy}"
    )
