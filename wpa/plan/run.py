"""One execution's pass through a plan.

Incremental: every node counts what it still waits for, and a settlement touches only the node's own
children. A whole run costs steps + edges, however often it is polled.

What a step's expressions may see is only what lies before it: the input, the outputs of its ancestors,
and the variables as its ancestors left them. A step's inputs are therefore a function of the input and
those outputs, and computed again after a crash they are the same. See ``docs/adr/0002``.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

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
from wpa.model.ids import undo_slot
from wpa.plan.expressions import ExpressionError
from wpa.plan.templates import Template

if TYPE_CHECKING:
    from wpa.plan.compile import Node, Plan

__all__ = ["PlanRun"]

PENDING: Final = "pending"
WANTED: Final = "wanted"
COMPLETED: Final = "completed"
FAILED: Final = "failed"
DECIDED: Final = "decided"
SKIPPED: Final = "skipped"

IF_SLOT: Final = ":if"


class PlanRun:
    """See :class:`wpa.kernel.program.Run`."""

    def __init__(self, plan: Plan, data: Any, variables: dict[str, Any], info: ExecutionInfo) -> None:
        self._plan = plan
        self._input = data
        self._variables = {**plan.document.variables, **variables}
        self._info = info
        self._execution: dict[str, Any] | None = None
        count = len(plan.nodes)
        self._status: list[str] = [PENDING] * count
        self._unmet = plan.unmet.copy()
        self._alive = [False] * count
        """Whether a plain need of the node has done something (it was not skipped)."""
        self._chosen = [False] * count
        self._values: dict[int, Any] = {}
        self._errors: dict[int, Failure] = {}
        self._inputs: dict[int, Any] = {}
        self._sets: dict[int, dict[str, Any]] = {}
        self._new: list[tuple[int, Want]] = []
        self._left = count
        self._completed = self._failed = self._skipped = 0
        self._broken: Failure | None = None
        for node in plan.nodes:
            if self._unmet[node.index] == 0:
                self._activate(node)

    # -- the protocol ------------------------------------------------------------------------

    def poll(self) -> Outcome:
        if self._broken is not None:
            return Failed(self._broken)
        if self._left == 0:
            return self._finish()
        if not self._new:
            return _NOTHING
        self._new.sort(key=lambda item: item[0])
        wants = tuple(want for _, want in self._new)
        self._new.clear()
        return Waiting(wants)

    def settle(self, settled: Settled) -> None:
        slot = settled.slot
        if slot.endswith(IF_SLOT):
            self._skip(self._plan.by_id[slot.removesuffix(IF_SLOT)])
            return
        index = self._plan.by_id[slot]
        node = self._plan.nodes[index]
        if settled.status == "decided":
            self._values[index] = settled.value
            for target in settled.value["taken"]:
                self._chosen[self._plan.by_id[target]] = True
            self._resolve(index, DECIDED)
            return
        if settled.status == "failed":
            self._failed += 1
            if settled.error is not None:
                self._errors[index] = settled.error
            self._resolve(index, FAILED)
            return
        self._completed += 1
        self._values[index] = settled.value
        self._status[index] = COMPLETED
        if node.sets is not None and not self._set(node):
            return
        self._resolve(index, COMPLETED)

    def undo(self, slot: str) -> Want | None:
        index = self._plan.by_id.get(slot)
        if index is None or self._plan.nodes[index].undo is None or self._status[index] != COMPLETED:
            return None
        node = self._plan.nodes[index]
        undo = node.undo
        assert undo is not None  # noqa: S101  just checked
        inputs, fault = self._render(undo.inputs, node, own=True)
        return Want(
            slot=undo_slot(slot), step=node.id, uses=undo.uses, inputs=inputs, policy=undo.policy, fault=fault
        )

    def progress(self) -> Progress:
        return Progress(
            total=self._plan.total, completed=self._completed, failed=self._failed, skipped=self._skipped
        )

    def steps(self) -> list[StepView]:
        views = []
        for node in self._plan.nodes:
            status = self._status[node.index]
            views.append(
                StepView(
                    step=node.id,
                    slot=node.id,
                    kind="decision" if node.is_decision else "step",
                    uses=node.uses,
                    phase="settled" if status in (COMPLETED, FAILED, DECIDED) else status,  # type: ignore[arg-type]
                    inputs=self._inputs.get(node.index),
                )
            )
        return views

    # -- moving on ---------------------------------------------------------------------------

    def _resolve(self, index: int, status: str) -> None:
        """A node has ended: its children wait for one thing less. Iterative: chains may be long."""
        ended = [(index, status)]
        while ended:
            index, status = ended.pop()
            self._status[index] = status
            self._left -= 1
            node = self._plan.nodes[index]
            if status == SKIPPED and not node.is_decision:
                self._skipped += 1
            for child in node.children:
                if status != SKIPPED and index not in self._plan.nodes[child].gates:
                    self._alive[child] = True
                self._unmet[child] -= 1
                if self._unmet[child] == 0:
                    if self._to_be_skipped(self._plan.nodes[child]):
                        ended.append((child, SKIPPED))
                    else:
                        self._activate(self._plan.nodes[child])

    def _skip(self, index: int) -> None:
        self._resolve(index, SKIPPED)

    def _to_be_skipped(self, node: Node) -> bool:
        if node.gates and not self._chosen[node.index]:
            return True
        return bool(node.needs) and not self._alive[node.index]

    def _activate(self, node: Node) -> None:
        """All that the node waits for has ended, and it is not skipped: want it."""
        self._status[node.index] = WANTED
        if node.condition is not None:
            value, fault = self._condition(node.condition, node)
            if fault is not None:
                self._want(node, fault=fault)
                return
            if not value:
                decision = {"kind": "if", "result": False, "skipped": [node.id]}
                self._want(node, slot=node.id + IF_SLOT, decision=decision)
                return
        if node.is_decision:
            self._decide(node)
            return
        inputs, fault = self._render(node.inputs, node)
        self._inputs[node.index] = inputs
        self._want(node, inputs=inputs, fault=fault)

    def _want(
        self,
        node: Node,
        *,
        slot: str = "",
        inputs: Any = None,
        decision: dict[str, Any] | None = None,
        fault: Failure | None = None,
    ) -> None:
        want = Want(
            slot=slot or node.id,
            step=node.id,
            kind="step" if decision is None else "decision",
            uses=node.uses,
            inputs=inputs,
            policy=node.policy,
            decision=decision,
            fault=fault,
        )
        self._new.append((node.index, want))

    def _decide(self, node: Node) -> None:
        matched: int | str | None = None
        taken: tuple[int, ...] = ()
        for number, branch in enumerate(node.branches):
            value, fault = self._condition(branch.when, node)
            if fault is not None:
                self._want(node, fault=fault)
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
            if target not in taken and not self._chosen[target] and self._unmet[target] == 1
        ]
        decision = {
            "kind": "switch",
            "matched": matched,
            "taken": self._names(taken),
            "skipped": self._names(skipped),
        }
        self._want(node, decision=decision)

    def _names(self, indexes: Iterable[int]) -> list[str]:
        return [self._plan.nodes[index].id for index in indexes]

    # -- expressions -------------------------------------------------------------------------

    def _render(self, template: Template, node: Node, *, own: bool = False) -> tuple[Any, Failure | None]:
        if not template.expressions:
            return template.constant, None
        try:
            return template.render(self._scope(template, node, own=own)), None
        except ExpressionError as error:
            return None, Failure(type="ExpressionError", message=str(error), retryable=False)

    def _condition(self, template: Template, node: Node) -> tuple[bool, Failure | None]:
        value, fault = self._render(template, node)
        if fault is None and type(value) is not bool:
            path, expression = template.expressions[0]
            message = f"{path}: `{expression.text}` gives {value!r:.80}; a condition must be true or false"
            fault = Failure(type="ExpressionError", message=message, retryable=False)
        return bool(value), fault

    def _set(self, node: Node) -> bool:
        assert node.sets is not None  # noqa: S101  the caller has looked
        values, fault = self._render(node.sets, node, own=True)
        if fault is not None:
            self._broken = fault
            return False
        self._sets[node.index] = values
        return True

    def _scope(self, template: Template, node: Node | None, *, own: bool = False) -> dict[str, Any]:
        """What an expression sees; only what it refers to is put in."""
        scope: dict[str, Any] = {"input": self._input, "vars": _EMPTY, "steps": _EMPTY, "execution": _EMPTY}
        names: set[str] = set()
        for _, expression in template.expressions:
            for path in expression.references:
                if path[0] == "steps":
                    names.update(path[1:2] or self._plan.by_id)
                elif path[0] == "vars":
                    scope["vars"] = self._vars(node, own=own)
                elif path[0] == "execution":
                    scope["execution"] = self._execution_scope()
        if names:
            scope["steps"] = {name: self._step(name) for name in names if name in self._plan.by_id}
        return scope

    def _step(self, name: str) -> dict[str, Any]:
        index = self._plan.by_id[name]
        error = self._errors.get(index)
        return {
            "output": self._values.get(index),
            "status": self._status[index],
            "error": {"type": error.type, "message": error.message} if error else None,
        }

    def _vars(self, node: Node | None, *, own: bool) -> dict[str, Any]:
        """The variables as the node's ancestors, and they alone, left them."""
        values = dict(self._variables)
        for setter in self._plan.setters:
            before = node is None or node.ancestors >> setter & 1 or (own and setter == node.index)
            if before and setter in self._sets:
                values |= self._sets[setter]
        return values

    def _execution_scope(self) -> dict[str, Any]:
        if self._execution is None:
            info = self._info
            self._execution = {
                "id": info.id,
                "tenant": info.tenant,
                "workflow": info.workflow,
                "version": info.version,
                "started_at": info.started_at,
                "metadata": info.metadata,
                "context": info.context,
            }
        return self._execution

    # -- the end -----------------------------------------------------------------------------

    def _finish(self) -> Outcome:
        output = self._plan.output
        if output is None:
            leaves = (self._plan.nodes[index] for index in self._plan.leaves)
            return Finished(
                {n.id: self._values.get(n.index) for n in leaves if self._status[n.index] == COMPLETED}
            )
        try:
            return Finished(output.render(self._scope(output, None)))
        except ExpressionError as error:
            return Failed(Failure(type="ExpressionError", message=str(error), retryable=False))


_NOTHING = Waiting()
_EMPTY: dict[str, Any] = {}
