"""Names in expressions: does what they refer to exist, and does it lie before the step?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from wpa.errors import Problem
from wpa.plan.compile import Plan
from wpa.plan.nodes import Node
from wpa.plan.suggest import near, suggest
from wpa.plan.templates import Template

__all__ = ["check_names", "outputs_read", "reads_input"]

STEP_FIELDS = ("output", "status", "error")
EXECUTION_FIELDS = ("id", "tenant", "workflow", "version", "started_at", "metadata", "context")


def check_names(plan: Plan) -> list[Problem]:
    """Every name that an expression of the plan misspells, or may not see."""
    problems: list[Problem] = []
    for template, node, own in _templates(plan):
        for path, expression in template.expressions:
            for reference in expression.references:
                problem = _check(plan, reference, node, own, path)
                if problem is not None:
                    problems.append(problem)
    return problems


def reads_input(plan: Plan) -> bool:
    """Whether what the plan wants may depend on its input."""
    return any(path[0] == "input" for _, path in _wanting(plan))


def outputs_read(plan: Plan) -> frozenset[str]:
    """The steps on whose outputs it may depend what the plan wants, with which inputs."""
    read: set[str] = set()
    for node, (root, *rest) in _wanting(plan):
        if root == "output":  # its own, from one turn of a loop to the next
            read.add(node.id)
        elif root == "steps" and not rest:
            return frozenset(plan.by_id)
        elif root == "steps" and rest[1:2] in ([], ["output"]):
            read.add(rest[0])
    return frozenset(read)


def _wanting(plan: Plan) -> Iterator[tuple[Node, tuple[str, ...]]]:
    """Every path that an expression reads, and the expression's node; without those of the plan's output."""
    for template, node, _ in _templates(plan):
        if node is not None:
            for _, expression in template.expressions:
                for path in expression.references:
                    yield node, path


def _templates(plan: Plan) -> Iterator[tuple[Template, Node | None, bool]]:
    """Every template with the node it belongs to, and whether it sees the node's own output."""
    for node in plan.nodes:
        yield node.inputs, node, False
        if node.condition is not None:
            yield node.condition, node, False
        for branch in node.branches:
            yield branch.when, node, False
        if node.undo is not None:
            yield node.undo.inputs, node, True
        if node.sets is not None:
            yield node.sets, node, True
        if node.each is not None:
            yield node.each.items, node, False
        if node.again is not None:
            yield node.again.condition, node, False
    if plan.output is not None:
        yield plan.output, None, True


def _check(plan: Plan, reference: tuple[str, ...], node: Node | None, own: bool, path: str) -> Problem | None:
    root, *rest = reference
    if not rest:
        return None
    if root == "steps":
        return _check_step(plan, rest, node, own, path)
    if root == "vars":
        return _check_variable(plan, rest[0], node, own, path)
    if root == "execution":
        if rest[0] not in EXECUTION_FIELDS:
            return Problem(path, f"'execution.{rest[0]}' is unknown", suggest(rest[0], EXECUTION_FIELDS))
        return None
    return _check_input(plan.document.input, rest[0], path) if root == "input" else None


def _check_step(plan: Plan, rest: list[str], node: Node | None, own: bool, path: str) -> Problem | None:
    name = rest[0]
    index = plan.by_id.get(name)
    if index is None:
        return Problem(path, f"'steps.{name}': there is no step {name!r}", suggest(name, plan.by_id))
    fields = STEP_FIELDS if plan.nodes[index].each is None else (*STEP_FIELDS, "errors")
    if len(rest) > 1 and rest[1] not in fields:
        return Problem(path, f"'steps.{name}.{rest[1]}' is unknown", suggest(rest[1], fields))
    if node is None or node.ancestors >> index & 1 or (own and index == node.index):
        return None
    if index == node.index:
        return Problem(path, f"step {name!r} can't see its own output before it has run")
    hint = f"add {name!r} to its needs"
    return Problem(path, f"'steps.{name}' is used, but step {node.id!r} does not come after it", hint)


def _check_variable(plan: Plan, name: str, node: Node | None, own: bool, path: str) -> Problem | None:
    if name in plan.document.variables:
        return None
    setters = [
        plan.nodes[index] for index in plan.setters if name in (plan.nodes[index].sets or _NONE).constant
    ]
    if not setters:
        known = set(plan.document.variables)
        for index in plan.setters:
            known.update((plan.nodes[index].sets or _NONE).constant)
        return Problem(
            path,
            f"'vars.{name}': there is no variable {name!r}",
            suggest(name, known, "declare it in $.variables"),
        )
    for setter in setters:
        if node is None or node.ancestors >> setter.index & 1 or (own and setter.index == node.index):
            return None
    here, there = node.id if node else "", setters[0].id
    message = f"'vars.{name}' is set by step {there!r}, but step {here!r} does not come after it"
    return Problem(path, message, f"add {setters[0].id!r} to its needs, or declare it in $.variables")


def _check_input(schema: Any, name: str, path: str) -> Problem | None:
    """Report what the schema excludes, and what looks like a slip of the pen."""
    if not isinstance(schema, dict):
        return None
    properties = schema.get("properties")
    if not isinstance(properties, dict) or name in properties:
        return None
    closed = schema.get("additionalProperties") is False
    if closed or near(name, properties) is not None:
        hint = suggest(name, properties)
        return Problem(path, f"'input.{name}' is not in the input schema", hint)
    return None


_NONE = Template({}, None, ())
