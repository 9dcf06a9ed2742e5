"""The reference interpreter: what a plan wants, given how its slots were settled, in which order.

It is written for being read, not for speed, and from the documentation of the language, not from the
engine. It decides nothing about time, attempts or workers: who settles a slot, and when, is the journal's.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from tests.checker.expressions import Unusable, condition, render
from tests.checker.plans import NO_POLICY, WAITS, Plan, Policy, Wait, duration_ms, waited_for

__all__ = ["Interpreter", "Want"]

Body = dict[str, Any]

ENDED: Final = frozenset({"completed", "failed", "decided", "skipped"})


@dataclass(frozen=True)
class Want:
    """A slot that the plan wants. ``decision`` and ``fault`` (a failure's type) are made already."""

    slot: str
    step: str
    kind: str
    uses: str = ""
    policy: Policy = NO_POLICY
    inputs: Any = None
    wait: Wait | None = None
    decision: Body | None = None
    fault: str = ""

    @property
    def derived(self) -> bool:
        """Whether it is recorded at once, without being opened."""
        return self.decision is not None or bool(self.fault)


class _Loop:
    """How far a ``foreach`` or a ``repeat`` has come."""

    def __init__(self, scope: Mapping[str, Any], items: list[Any] | None) -> None:
        self.scope = scope
        self.items = items
        self.next = 0
        self.open: dict[str, int] = {}
        self.outputs: dict[int, Any] = {}
        self.lost: list[Body] = []
        self.last: Any = None


class Interpreter:
    """One pass through a plan. Settle slots in the order in which they were recorded; read ``wants``."""

    def __init__(self, document: Body, data: Any, variables: Body, execution: Body) -> None:
        self.plan = Plan(document)
        self.wants: dict[str, Want] = {}
        """All that is wanted now and has not been settled, open or not."""
        self.broken = ""
        """The type of the failure with which the plan itself can't go on."""
        self.completed: list[str] = []
        """Slots whose work is done, in order."""
        self._data, self._execution = data, execution
        self._variables = {**document.get("variables", {}), **variables}
        self._status = dict.fromkeys(self.plan.items, "pending")
        self._values: Body = {}
        self._errors: dict[str, Body] = {}
        self._lost: dict[str, list[Body]] = {}
        self._taken: dict[str, list[str]] = {}
        self._sets: dict[str, Body] = {}
        self._loops: dict[str, _Loop] = {}
        for name in self.plan.items:
            if not self.plan.parents[name] and self._status[name] == "pending":
                self._activate(name)

    # -- from outside ------------------------------------------------------------------------

    def settle(self, slot: str, status: str, value: Any = None, error: Body | None = None) -> None:
        """A wanted slot has ended: ``completed``, ``failed`` or ``decided``. Raises KeyError for any other."""
        want = self.wants.pop(slot)
        name = want.step
        if status == "completed" and not slot.endswith((":undo", ":if")):
            self.completed.append(slot)
        if name in self._loops:
            self._turn(name, self._loops[name], slot, status, value, error or {})
        elif slot == f"{name}:if":
            self._resolve(name, "skipped")
        elif status == "decided":
            self._values[name], self._taken[name] = value, value["taken"]
            self._resolve(name, "decided")
        elif status == "failed":
            self._errors[name] = error or {}
            self._resolve(name, "failed")
        else:
            self._complete(name, value)

    @property
    def finished(self) -> bool:
        """Whether every path has ended."""
        return not self.broken and all(status in ENDED for status in self._status.values())

    def output(self) -> Any:
        """The execution's output. Raises Unusable where it can't be computed."""
        output = self.plan.document.get("output")
        if output is None:
            done = [name for name in self.plan.leaves if self._status[name] == "completed"]
            return {name: self._values.get(name) for name in done}
        return render(output, self._scope(None, output))

    def undo(self) -> list[str]:
        """The slots that undo what is completed, the last first."""
        return [f"{slot}:undo" for slot in reversed(self.completed) if self._undoable(slot)]

    def _undoable(self, slot: str) -> bool:
        name, _, rest = slot.partition(":")
        return bool(self.plan.items[name].get("compensate")) and (not rest or rest.isdigit())

    # -- the end of a step -------------------------------------------------------------------

    def _complete(self, name: str, value: Any) -> None:
        self._values[name] = value
        self._status[name] = "completed"
        if sets := self.plan.items[name].get("set"):
            try:
                self._sets[name] = render(sets, self._scope(name, sets, own=True))
            except Unusable as error:
                self.broken = error.type
                return
        self._resolve(name, "completed")

    def _resolve(self, name: str, status: str) -> None:
        """A step has ended; those that wait for it start, are skipped, or go on waiting."""
        self._status[name] = status
        ended = [name]
        while ended:
            for child in self.plan.children[ended.pop()]:
                starts = self._starts(child) if self._status[child] == "pending" else None
                if starts:
                    for rival in self.plan.rivals(child):
                        self._abandon(rival)
                    self._activate(child)
                elif starts is False:
                    self._status[child] = "skipped"
                    ended.append(child)

    def _starts(self, name: str) -> bool | None:
        """Whether a pending step starts (True) or is skipped (False); None: neither yet."""
        gates, needs = self.plan.gates[name], self.plan.needs[name]
        decided = all(self._status[gate] in ENDED for gate in gates)
        chosen = not gates or any(name in self._taken.get(gate, ()) for gate in gates)
        ended = [need for need in needs if self._status[need] in ENDED]
        alive = [need for need in ended if self._status[need] != "skipped"]
        if quorum := self.plan.quorum(name):
            if len(needs) - (len(ended) - len(alive)) < quorum or (decided and not chosen):
                return False
            return True if decided and len(alive) >= quorum else None
        if not decided or len(ended) < len(needs):
            return None
        return chosen and (bool(alive) or not needs)

    def _abandon(self, name: str) -> None:
        """The step has lost a race: nothing waits for it any more."""
        if self._status[name] not in ENDED:
            self._status[name] = "skipped"
            for slot in [slot for slot, want in self.wants.items() if want.step == name]:
                del self.wants[slot]

    # -- the start of a step -----------------------------------------------------------------

    def _activate(self, name: str) -> None:
        item = self.plan.items[name]
        self._status[name] = "wanted"
        try:
            if "if" in item and not self._truth(item["if"], self._scope(name, item)):
                decision = {"kind": "if", "result": False, "skipped": [name]}
                self._want(name, f"{name}:if", decision=decision)
            elif "switch" in item:
                self._want(name, name, decision=self._decide(name, item))
            elif "foreach" in item:
                self._begin_items(name, item)
            elif "repeat" in item:
                loop = self._loops[name] = _Loop(self._scope(name, item), None)
                self._round(name, loop)
            else:
                self._occur(name, name, self._scope(name, item))
        except Unusable as error:
            self._want(name, name, fault=error.type)

    def _truth(self, text: str, scope: Mapping[str, Any]) -> bool:
        value = condition(text, scope)
        if not isinstance(value, bool):
            raise Unusable("ExpressionError", f"{text} gives {value!r}")
        return value

    def _decide(self, name: str, item: Body) -> Body:
        scope = self._scope(name, item)
        branches = range(len(item["switch"]))
        matched = next((n for n in branches if self._truth(item["switch"][n]["when"], scope)), None)
        taken = self.plan.taken(name, matched)
        skipped = [
            target
            for target in self.plan.targets[name]
            if target not in taken
            and not any(target in chosen for chosen in self._taken.values())
            and self._waits_only_for_this(target)
        ]
        default = "default" if taken else None
        return {
            "kind": "switch",
            "matched": default if matched is None else matched,
            "taken": taken,
            "skipped": skipped,
        }

    def _waits_only_for_this(self, target: str) -> bool:
        before = self.plan.gates[target] if self.plan.quorum(target) else self.plan.parents[target]
        return sum(self._status[parent] not in ENDED for parent in before) == 1

    def _want(self, name: str, slot: str, **more: Any) -> None:
        item = self.plan.items[name]
        kind = "decision" if "switch" in item else WAITS.get(item["uses"], "step")
        policy = self.plan.policy(name)
        self.wants[slot] = Want(slot, name, kind, item.get("uses", ""), policy, **more)

    def _occur(self, name: str, slot: str, scope: Mapping[str, Any]) -> None:
        """A step's work, or wait, is wanted, with its inputs as ``scope`` makes them."""
        item = self.plan.items[name]
        try:
            inputs = render(item.get("with", {}), scope)
            wait = waited_for(item, inputs) if item["uses"] in WAITS else None
        except Unusable as error:
            self._want(name, slot, fault=error.type)
        else:
            self._want(name, slot, inputs=inputs, wait=wait)

    # -- loops -------------------------------------------------------------------------------

    def _begin_items(self, name: str, item: Body) -> None:
        each, scope = item["foreach"], self._scope(name, item)
        items = condition(each["in"], scope) if isinstance(each["in"], str) else render(each["in"], scope)
        if not isinstance(items, list) or len(items) > each.get("max", 10_000):
            raise Unusable("InvalidInput", f"{name} can't run for each of that")
        loop = self._loops[name] = _Loop(scope, items)
        if not items:
            self._want(name, f"{name}:foreach", decision={"kind": "foreach", "items": 0})
        for _ in range(min(each.get("concurrency", 10), len(items))):
            self._item(name, loop)

    def _item(self, name: str, loop: _Loop) -> None:
        assert loop.items is not None
        number, loop.next = loop.next, loop.next + 1
        local = {self.plan.items[name]["foreach"].get("as", "item"): loop.items[number], "index": number}
        loop.open[slot := _slot(name, number)] = number
        self._occur(name, slot, {**loop.scope, **local})

    def _round(self, name: str, loop: _Loop) -> None:
        loop.open[slot := _slot(name, loop.next)] = loop.next
        self._occur(name, slot, {**loop.scope, "output": loop.last, "index": loop.next})

    def _turn(self, name: str, loop: _Loop, slot: str, status: str, value: Any, error: Body) -> None:
        """One occurrence of a loop has ended."""
        number = loop.open.pop(slot, 0)
        if status == "decided":
            self._complete(name, [])
        elif loop.items is None:
            self._after_round(name, loop, slot, status, value, error)
        elif status == "failed" and self.plan.items[name]["foreach"].get("on_error") != "continue":
            self._end_loop(name, {**error, "message": f"item {number}: {error.get('message', '')}"})
        else:
            if status == "failed":
                told = {"type": error.get("type", ""), "message": error.get("message", "")}
                loop.lost.append({"index": number, **told})
            loop.outputs[number] = value if status == "completed" else None
            if len(loop.outputs) == len(loop.items):
                self._lost[name] = sorted(loop.lost, key=lambda item: int(item["index"]))
                self._complete(name, [loop.outputs[index] for index in range(len(loop.items))])
            elif loop.next < len(loop.items):
                self._item(name, loop)

    def _after_round(self, name: str, loop: _Loop, slot: str, status: str, value: Any, error: Body) -> None:
        again = self.plan.items[name]["repeat"]
        if status == "failed":
            self._end_loop(name, error)
        elif slot.startswith(f"{name}:delay"):
            self._round(name, loop)
        else:
            loop.last = value
            scope = {**loop.scope, "output": value, "index": loop.next}
            try:
                stops = "until" in again
                if self._truth(again["until" if stops else "while"], scope) is stops:
                    self._complete(name, value)
                    return
                loop.next += 1
                if loop.next >= again.get("max", 100):
                    raise Unusable("RepeatExhausted", f"{name} has no rounds left")
            except Unusable as fault:
                loop.next += fault.type != "RepeatExhausted"
                self._want(name, _slot(name, loop.next), fault=fault.type)
            else:
                self._again(name, loop, again.get("delay"))

    def _again(self, name: str, loop: _Loop, delay: str | None) -> None:
        if delay is None:
            self._round(name, loop)
            return
        slot = f"{name}:delay" + (f":{loop.next}" if loop.next > 1 else "")
        wait = Wait(delay_ms=duration_ms(delay))
        self.wants[slot] = Want(slot, name, "timer", "core.sleep", wait=wait)

    def _end_loop(self, name: str, error: Body) -> None:
        """A loop has failed; what of it is still wanted isn't any more."""
        for slot in self._loops[name].open:
            self.wants.pop(slot, None)
        self._errors[name] = error
        self._resolve(name, "failed")

    # -- what expressions see ----------------------------------------------------------------

    def _scope(self, name: str | None, told: Any, *, own: bool = False) -> Body:
        """The input, the variables as its ancestors left them, and the steps that ``told`` mentions."""
        text = json.dumps(told)
        seen = self.plan.items if name is None else self.plan.ancestors[name] | ({name} if own else set())
        variables = dict(self._variables)
        for setter in self.plan.setters:
            variables |= self._sets.get(setter, {}) if setter in seen else {}
        steps = {step: self._seen(step) for step in self.plan.items if step in text}
        return {
            "input": self._data,
            "vars": variables,
            "steps": steps or {step: self._seen(step) for step in seen},
            "execution": self._execution,
        }

    def _seen(self, name: str) -> Body:
        status, error = self._status[name], self._errors.get(name)
        seen = {
            "output": self._values.get(name),
            "status": "pending" if status == "wanted" else status,
            "error": {"type": error.get("type"), "message": error.get("message")} if error else None,
        }
        return {**seen, "errors": self._lost.get(name, [])} if "foreach" in self.plan.items[name] else seen


def _slot(name: str, number: int) -> str:
    return f"{name}:{number + 1}" if number else name
