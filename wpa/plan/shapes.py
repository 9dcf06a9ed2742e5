"""Do a step's inputs fit what its step type takes? Constants are checked, expressions are trusted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from wpa.errors import Problem
from wpa.model.steptype import StepSignature
from wpa.plan.documents import Decision, Document
from wpa.plan.suggest import suggest
from wpa.plan.templates import has_expression
from wpa.plan.waits import KINDS

__all__ = ["check_inputs"]


def check_inputs(document: Document, catalog: Mapping[str, StepSignature]) -> list[Problem]:
    """Every input that is missing, unknown, or of the wrong type."""
    problems: list[Problem] = []
    for index, item in enumerate(document.steps):
        if isinstance(item, Decision) or item.queue:
            continue
        # What waiting steps take is checked when they are compiled.
        calls = [] if item.uses in KINDS else [(item.uses, item.inputs, f"$.steps[{index}].with")]
        if item.compensate is not None:
            calls.append((item.compensate.uses, item.compensate.inputs, f"$.steps[{index}].compensate.with"))
        for uses, inputs, path in calls:
            signature = catalog.get(uses)
            if signature is not None:
                problems += _check(uses, inputs, signature.input_schema, path)
    return problems


def _check(uses: str, inputs: dict[str, Any], schema: dict[str, Any], path: str) -> list[Problem]:
    properties = schema.get("properties")
    if not isinstance(properties, dict):
        return []
    problems = []
    for name in schema.get("required", ()):
        if name not in inputs:
            kind = _kind(properties.get(name, {}))
            problems.append(Problem(path, f"{uses} needs the input {name!r}{kind}", "add it"))
    closed = schema.get("additionalProperties") is False
    for name, value in inputs.items():
        if name not in properties:
            if closed:
                hint = suggest(name, properties)
                problems.append(Problem(f"{path}.{name}", f"{uses} has no input {name!r}", hint))
        elif not has_expression(value):
            complaint = _misfit(value, properties[name], schema)
            if complaint:
                problems.append(Problem(f"{path}.{name}", complaint))
    return problems


def _kind(schema: Any) -> str:
    kind = schema.get("type") if isinstance(schema, dict) else None
    return f" ({kind})" if isinstance(kind, str) else ""


def _misfit(value: Any, schema: Any, whole: dict[str, Any]) -> str:
    """The first complaint about a constant, or nothing."""
    if isinstance(schema, dict) and "$defs" in whole:
        schema = {**schema, "$defs": whole["$defs"]}
    import jsonschema
    import referencing.exceptions

    try:
        error = next(jsonschema.Draft202012Validator(schema).iter_errors(value), None)
    except (referencing.exceptions.Unresolvable, RecursionError):
        return ""  # a plugin's schema that can't be followed is no fault of the definition's
    return "" if error is None else error.message[:300]
