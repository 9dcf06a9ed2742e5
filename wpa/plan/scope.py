"""What a run has learned, and what of it an expression may see."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from wpa.kernel.program import ExecutionInfo
from wpa.model.events import Failure
from wpa.plan.paths import narrowed
from wpa.plan.templates import Template

if TYPE_CHECKING:
    from wpa.plan.compile import Plan
    from wpa.plan.nodes import Node

__all__ = ["COMPLETED", "DECIDED", "FAILED", "PENDING", "SKIPPED", "WANTED", "Facts", "narrow"]

PENDING: Final = "pending"
WANTED: Final = "wanted"
COMPLETED: Final = "completed"
FAILED: Final = "failed"
DECIDED: Final = "decided"
SKIPPED: Final = "skipped"


class Facts:
    """How the nodes of a plan stand, by number."""

    __slots__ = (
        "_execution",
        "_info",
        "_input",
        "_plan",
        "_variables",
        "errors",
        "lost",
        "sets",
        "status",
        "values",
    )

    def __init__(self, plan: Plan, data: Any, variables: dict[str, Any], info: ExecutionInfo) -> None:
        self._plan = plan
        self._input = data
        self._variables = {**plan.document.variables, **variables}
        self._info = info
        self._execution: dict[str, Any] | None = None
        self.status: list[str] = [PENDING] * len(plan.nodes)
        self.values: dict[int, Any] = {}
        """The outputs of steps, and the records of decisions."""
        self.errors: dict[int, Failure] = {}
        self.lost: dict[int, list[dict[str, Any]]] = {}
        """For a ``foreach`` that goes on after errors: the items that gave up."""
        self.sets: dict[int, dict[str, Any]] = {}
        """The variables that each node has set."""

    def scope(self, template: Template, node: Node | None, *, own: bool = False) -> dict[str, Any]:
        """What an expression of ``node`` sees; only what it refers to is put in.

        Args:
            template: the data with the expressions.
            node: the node it belongs to; None for the plan's output, which sees everything.
            own: whether the node sees what it has set itself.
        """
        if not template.expressions:
            return _EMPTY
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
        error = self.errors.get(index)
        status = self.status[index]
        seen = {
            "output": self.values.get(index),
            "status": PENDING if status == WANTED else status,
            "error": {"type": error.type, "message": error.message} if error else None,
        }
        if self._plan.nodes[index].each is not None:
            seen["errors"] = self.lost.get(index, [])
        return seen

    def _vars(self, node: Node | None, *, own: bool) -> dict[str, Any]:
        """The variables as the node's ancestors, and they alone, left them."""
        values = dict(self._variables)
        for setter in self._plan.setters:
            before = node is None or node.ancestors >> setter & 1 or (own and setter == node.index)
            if before and setter in self.sets:
                values |= self.sets[setter]
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


def narrow(scope: dict[str, Any], template: Template) -> dict[str, Any]:
    """As much of ``scope`` as the template's expressions read.

    An evaluation converts every variable that it touches, with all that hangs on it. A template that is
    rendered for each of many items must not pay for a large input of which it reads one field.
    """
    return narrowed(scope, [path for _, expression in template.expressions for path in expression.references])


_EMPTY: dict[str, Any] = {}
