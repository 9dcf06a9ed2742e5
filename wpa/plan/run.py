"""One execution's pass through a plan.

Incremental: every node counts what it still waits for, and a settlement touches only the node's own
children. A whole run costs steps + edges (and items, and rounds), however often it is polled.

What a step's expressions may see is only what lies before it: the input, the outputs of its ancestors,
and the variables as its ancestors left them. A step's inputs are therefore a function of the input and
those outputs, and computed again after a crash they are the same. See ``docs/adr/0002``.
"""

from __future__ import annotations

from collections.abc import Iterable
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final

from wpa.kernel.match import Diverged
from wpa.kernel.program import (
    ExecutionInfo,
    Failed,
    Finished,
    Outcome,
    Progress,
    Settled,
    StepView,
    Waiting,
    Want,
)
from wpa.model.events import Failure
from wpa.plan.joins import Quorum, bits
from wpa.plan.loops import Foreach, Loop, Repeat
from wpa.plan.scope import COMPLETED, DECIDED, FAILED, PENDING, SKIPPED, WANTED, Facts, narrow
from wpa.plan.templates import Template
from wpa.plan.wants import decided, faulty, occurrence, render, truth, undoing, unusable

if TYPE_CHECKING:
    from wpa.plan.compile import Plan
    from wpa.plan.nodes import Node

__all__ = ["PlanRun"]

IF_SLOT: Final = ":if"


class PlanRun:
    """See :class:`wpa.kernel.program.Run`."""

    def __init__(self, plan: Plan, data: Any, variables: dict[str, Any], info: ExecutionInfo) -> None:
        self._plan = plan
        self._facts = Facts(plan, data, variables, info)
        self._status = self._facts.status
        count = len(plan.nodes)
        self._unmet = plan.unmet.copy()
        self._quorums = {index: Quorum(plan.nodes[index]) for index in plan.quorums}
        self._alive = [False] * count
        """Whether a plain need of the node has done something (it was not skipped)."""
        self._chosen = plan.ungated.copy()
        self._inputs: dict[int, Any] = {}
        self._asked: dict[int, Want] = {}
        """What is wanted, and not settled, of each node without a loop, or whose loop has not begun."""
        self._loops: dict[int, Loop] = {}
        self._new: list[tuple[int, Want]] = []
        self._dropped: list[str] = []
        self._ahead = (1 << count) - 1
        """A bit for each node that has not ended."""
        self._completed = self._failed = self._skipped = 0
        self._broken: Failure | None = None
        for node in plan.first:
            self._activate(node)

    # -- the protocol ------------------------------------------------------------------------

    def poll(self) -> Outcome:
        dropped: tuple[str, ...] = ()
        if self._dropped:
            dropped = tuple(self._dropped)
            self._dropped.clear()
        if self._broken is not None:
            return Failed(self._broken, dropped)
        if not self._ahead:
            return self._finish(dropped)
        if not self._new and not dropped:
            return _NOTHING
        new, self._new = self._new, []
        if len(new) == 1:
            return Waiting((new[0][1],), dropped)
        new.sort(key=itemgetter(0))
        return Waiting(tuple([want for _, want in new]), dropped)

    def settle(self, settled: Settled) -> None:
        plan = self._plan
        index = plan.by_id.get(settled.slot)
        if index is None:  # a turn of a loop, or a condition
            index = plan.by_id[settled.slot.partition(":")[0]]
        node = plan.nodes[index]
        loop = self._loops.get(index)
        if loop is not None:
            self._turn(node, loop, settled)
            return
        want = self._asked.pop(index)
        if want.fault is not None:
            self._check_never_begun(node, want.fault, settled)
        if settled.status == "completed":
            self._complete(node, settled.value)
        elif settled.slot.endswith(IF_SLOT):
            self._resolve(node, SKIPPED)
        elif settled.status == "decided":
            self._facts.values[node.index] = settled.value
            for target in settled.value["taken"]:
                self._choose(node, target)
            self._resolve(node, DECIDED)
        else:
            self._give_up(node, settled.error)

    def undo(self, slot: str) -> Want | None:
        step = slot.partition(":")[0]
        index = self._plan.by_id.get(step)
        node = None if index is None else self._plan.nodes[index]
        if node is None or node.undo is None:
            return None
        loop = self._loops.get(node.index)
        own: dict[str, Any] | None
        if loop is not None:
            own = loop.locals_of(slot)
        else:
            own = {} if slot == step and self._status[node.index] == COMPLETED else None
        if own is None:
            return None
        if node.undo.want is not None:
            return node.undo.want
        return undoing(node, slot, {**self._facts.scope(node.undo.inputs, node, own=True), **own})

    def progress(self) -> Progress:
        begun = 0.0
        if self._loops:
            # A loop whose step a race has skipped has not ended, and counts as skipped alone.
            begun = sum(loop.share for index, loop in self._loops.items() if self._status[index] == WANTED)
        return Progress(
            total=self._plan.total,
            completed=self._completed,
            failed=self._failed,
            skipped=self._skipped,
            begun=begun,
        )

    def steps(self) -> list[StepView]:
        views = []
        for node in self._plan.nodes:
            status = self._status[node.index]
            loop = self._loops.get(node.index)
            views.append(
                StepView(
                    step=node.id,
                    slot=node.id,
                    kind=node.kind,
                    uses=node.uses,
                    phase="settled" if status in (COMPLETED, FAILED, DECIDED) else status,  # type: ignore[arg-type]
                    inputs=self._inputs.get(node.index),
                    turns=None if loop is None else loop.turns(),
                    output=None if loop is None or not loop.ended else loop.output,
                    error=None if loop is None else loop.error,
                )
            )
        return views

    # -- the end of a node -------------------------------------------------------------------

    def _turn(self, node: Node, loop: Loop, settled: Settled) -> None:
        """One occurrence of a loop has ended; perhaps the loop with it."""
        self._new += [(node.index, want) for want in loop.settle(settled)]
        if not loop.ended:
            return
        self._drop_all(loop)
        if isinstance(loop, Foreach):
            self._facts.lost[node.index] = loop.lost
        if loop.error is not None:
            self._give_up(node, loop.error)
        else:
            self._complete(node, loop.output)

    def _complete(self, node: Node, value: Any) -> None:
        self._completed += 1
        self._facts.values[node.index] = value
        self._status[node.index] = COMPLETED
        if node.sets is not None:
            values, fault = render(node.sets, self._facts.scope(node.sets, node, own=True))
            if fault is not None:
                self._broken = fault
                return
            self._facts.sets[node.index] = values
        self._resolve(node, COMPLETED)

    def _give_up(self, node: Node, error: Failure | None) -> None:
        self._failed += 1
        if error is not None:
            self._facts.errors[node.index] = error
        self._resolve(node, FAILED)

    def _resolve(self, node: Node, status: str) -> None:
        """A node has ended: its children wait for one thing less. Iterative: chains may be long."""
        self._close(node, status)
        nodes = self._plan.nodes
        ended = [node]
        while ended:
            node = ended.pop()
            before = node.index
            skipped = self._status[before] == SKIPPED
            for index in node.children:
                child = nodes[index]
                starts = self._advance(child, before, skipped=skipped)
                if starts:
                    self._start(child)
                elif starts is not None:
                    self._close(child, SKIPPED)
                    ended.append(child)

    def _close(self, node: Node, status: str) -> None:
        self._status[node.index] = status
        self._ahead &= ~(1 << node.index)
        if status == SKIPPED and not node.is_decision:
            self._skipped += 1

    # -- the start of a node -----------------------------------------------------------------

    def _advance(self, node: Node, ended: int, *, skipped: bool) -> bool | None:
        """Something that ``node`` waits for has ended: does it start, is it skipped, or neither yet?"""
        index = node.index
        gate = ended in node.gates
        if node.quorum:
            quorum = self._quorums[index]
            if gate:
                quorum.gate_ended()
            else:
                quorum.need_ended(skipped=skipped)
            pending = self._status[index] == PENDING
            return quorum.decided(chosen=self._chosen[index]) if pending else None
        if not gate and not skipped:
            self._alive[index] = True
        unmet = self._unmet
        unmet[index] -= 1
        if unmet[index] or self._status[index] != PENDING:
            return None
        return self._chosen[index] and (self._alive[index] or not node.needs)

    def _start(self, node: Node) -> None:
        if node.rivals:
            for index in bits(node.rivals & self._ahead):
                self._abandon(self._plan.nodes[index])
        self._activate(node)

    def _abandon(self, node: Node) -> None:
        """The node lost a race: nothing waits for it any more, nor for what follows it."""
        loop = self._loops.get(node.index)
        if loop is not None:
            self._drop_all(loop)
        elif node.index in self._asked:
            self._drop([self._asked.pop(node.index).slot])
        self._close(node, SKIPPED)

    def _drop_all(self, loop: Loop) -> None:
        self._drop(loop.open)
        loop.open.clear()

    def _drop(self, slots: Iterable[str]) -> None:
        """Slots that were wanted aren't any more. What nobody has heard of yet is just forgotten."""
        gone = dict.fromkeys(slots)
        if not gone:
            return
        unheard = {want.slot for _, want in self._new} & gone.keys()
        self._new = [(index, want) for index, want in self._new if want.slot not in unheard]
        self._dropped += [slot for slot in gone if slot not in unheard]

    def _activate(self, node: Node) -> None:
        """The node is to start, if its own condition has nothing against it."""
        self._status[node.index] = WANTED
        if node.condition is not None:
            value, fault = self._truth(node.condition, node)
            if fault is not None:
                self._want(node, faulty(node, node.id, fault))
                return
            if not value:
                decision = {"kind": "if", "result": False, "skipped": [node.id]}
                self._want(node, decided(node, node.id + IF_SLOT, decision))
                return
        if node.is_decision:
            self._decide(node)
        elif node.each is not None:
            self._begin_foreach(node)
        elif node.again is not None:
            scope = narrow(self._facts.scope(node.again.sees, node), node.again.sees)
            self._begin(node, Repeat(node, scope))
        else:
            want = node.want or occurrence(node, node.id, self._facts.scope(node.inputs, node))
            self._inputs[node.index] = want.inputs
            self._want(node, want)

    def _want(self, node: Node, want: Want) -> None:
        self._asked[node.index] = want
        self._new.append((node.index, want))

    def _begin(self, node: Node, loop: Loop) -> None:
        self._loops[node.index] = loop
        self._new += [(node.index, want) for want in loop.start()]

    def _begin_foreach(self, node: Node) -> None:
        assert node.each is not None  # noqa: S101  the caller has looked
        items, fault = render(node.each.items, self._facts.scope(node.each.items, node))
        if fault is None and not isinstance(items, list):
            fault = unusable(f"{node.each.path}.in gives {items!r:.80}; foreach needs a list")
        elif fault is None and len(items) > node.each.max:
            fault = unusable(
                f"{node.each.path}.in gives {len(items)} items; the most is {node.each.max}: split the list"
            )
        if fault is not None:
            self._want(node, faulty(node, node.id, fault))
            return
        scope = narrow(self._facts.scope(node.inputs, node), node.inputs)
        self._begin(node, Foreach(node, items, scope))

    def _check_never_begun(self, node: Node, fault: Failure, settled: Settled) -> None:
        """Raise Diverged where a loop that can't begin, in this version, has had a turn: its first one has
        the slot of the fault, and would count as the whole step."""
        if node.each is None and node.again is None:
            return
        if settled.error is None or settled.error.type != fault.type:
            raise Diverged(
                f"the definition of {self._plan.id} {self._plan.version} does not ask for what the journal "
                f"says was done: {node.id} was begun, and can't begin any more: {fault.message}"
            )

    # -- decisions ---------------------------------------------------------------------------

    def _decide(self, node: Node) -> None:
        matched: int | str | None = None
        taken: tuple[int, ...] = ()
        for number, branch in enumerate(node.branches):
            value, fault = self._truth(branch.when, node)
            if fault is not None:
                self._want(node, faulty(node, node.id, fault))
                return
            if value:
                matched, taken = number, branch.targets
                break
        else:
            if node.default:
                matched, taken = "default", node.default
        skipped = [
            target
            for target in node.targets
            if target not in taken and not self._chosen[target] and self._only_gate_left(target)
        ]
        decision = {
            "kind": "switch",
            "matched": matched,
            "taken": self._names(taken),
            "skipped": self._names(skipped),
        }
        self._want(node, decided(node, node.id, decision))

    def _choose(self, node: Node, name: str) -> None:
        """A decision has taken a branch. Raises Diverged where, in this version, it can't have."""
        target = self._plan.by_id.get(name)
        if target not in node.targets:
            raise Diverged(
                f"the definition of {self._plan.id} {self._plan.version} does not ask for what the journal "
                f"says was done: {node.id} has taken {name}, and has no branch to it any more"
            )
        self._chosen[target] = True

    def _truth(self, condition: Template, node: Node) -> tuple[bool, Failure | None]:
        return truth(condition, self._facts.scope(condition, node))

    def _only_gate_left(self, target: int) -> bool:
        """Whether the target waits for nothing but the decision that is being made.

        The counts of what it waits for won't do: what has ended may not have been counted for it yet.
        """
        node = self._plan.nodes[target]
        before = node.gates if target in self._quorums else (*node.needs, *node.gates)
        return sum(self._ahead >> index & 1 for index in before) == 1

    def _names(self, indexes: Iterable[int]) -> list[str]:
        return [self._plan.nodes[index].id for index in indexes]

    # -- the end -----------------------------------------------------------------------------

    def _finish(self, dropped: tuple[str, ...]) -> Outcome:
        output = self._plan.output
        if output is None:
            nodes, status, values = self._plan.nodes, self._status, self._facts.values
            ended = [index for index in self._plan.leaves if status[index] == COMPLETED]
            return Finished({nodes[index].id: values.get(index) for index in ended}, dropped)
        value, fault = render(output, self._facts.scope(output, None))
        return Finished(value, dropped) if fault is None else Failed(fault, dropped)


_NOTHING = Waiting()
