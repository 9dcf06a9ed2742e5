"""How the wants of a plan's nodes are made: inputs computed, waits worked out, faults told."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from wpa.kernel.program import StepPolicy, Want
from wpa.model.events import Failure
from wpa.model.ids import undo_slot
from wpa.plan.expressions import ExpressionError
from wpa.plan.templates import Template
from wpa.plan.waits import KINDS, InvalidWait, wait_for

if TYPE_CHECKING:
    from wpa.plan.nodes import Node

__all__ = ["decided", "faulty", "foresee", "occurrence", "render", "truth", "undoing", "unusable"]

Scope = Mapping[str, Any]


def render(template: Template, scope: Scope) -> tuple[Any, Failure | None]:
    """The template's data, or why it can't be computed."""
    try:
        return template.render(scope), None
    except ExpressionError as error:
        return None, unusable(str(error), "ExpressionError")


def truth(condition: Template, scope: Scope) -> tuple[bool, Failure | None]:
    """The truth of a condition, or why it has none."""
    value, fault = render(condition, scope)
    if fault is None and type(value) is not bool:
        path, expression = condition.expressions[0]
        fault = unusable(
            f"{path}: `{expression.text}` gives {value!r:.80}; a condition must be true or false",
            "ExpressionError",
        )
    return bool(value), fault


def unusable(message: str, type: str = "InvalidInput") -> Failure:
    """A failure that no second attempt can mend."""
    return Failure(type=type, message=message, retryable=False)


def occurrence(node: Node, slot: str, scope: Scope, policy: StepPolicy | None = None) -> Want:
    """The want of a step's work, or wait, with its inputs computed in ``scope``."""
    inputs, fault = render(node.inputs, scope)
    wait = node.wait
    if wait is None and node.kind != "step" and fault is None:
        try:
            wait = wait_for(node.uses, inputs, node.timeout_ms)
        except InvalidWait as error:
            fault = unusable(str(error))
    return Want(
        slot=slot,
        step=node.id,
        kind=node.kind,
        uses=node.uses,
        inputs=inputs,
        policy=policy or node.policy,
        wait=wait,
        fault=fault,
    )


def foresee(node: Node) -> None:
    """Make, once and for all, those of a node's wants that no execution changes."""
    if node.is_decision or node.each is not None or node.again is not None:
        return
    if not node.inputs.expressions:
        node.want = occurrence(node, node.id, {})
    if node.undo is not None and not node.undo.inputs.expressions:
        node.undo = msgspec.structs.replace(node.undo, want=undoing(node, node.id, {}))


def undoing(node: Node, slot: str, scope: Scope) -> Want | None:
    """The want that undoes a completed slot: a step, or a workflow of its own; None where nothing does."""
    undo = node.undo
    if undo is None:
        return None
    kind, wait = KINDS.get(undo.uses, "step"), None
    inputs, fault = render(undo.inputs, scope)
    if kind != "step" and fault is None:
        try:
            wait = wait_for(undo.uses, inputs, undo.policy.timeout_ms)
        except InvalidWait as error:
            fault = unusable(str(error))
    return Want(
        slot=undo_slot(slot),
        step=node.id,
        kind=kind,
        uses=undo.uses,
        inputs=inputs,
        policy=undo.policy,
        wait=wait,
        fault=fault,
    )


def faulty(node: Node, slot: str, fault: Failure) -> Want:
    """The want of a slot that can't be attempted."""
    return Want(slot=slot, step=node.id, kind=node.kind, uses=node.uses, policy=node.policy, fault=fault)


def decided(node: Node, slot: str, decision: dict[str, Any]) -> Want:
    """The want of a decision that is made already."""
    return Want(
        slot=slot, step=node.id, kind="decision", uses=node.uses, policy=node.policy, decision=decision
    )
