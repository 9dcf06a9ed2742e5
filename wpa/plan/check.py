"""Everything that can be wrong with a definition, found before anything of it runs.

``check`` gives all problems at once, each with its JSON path and, where there is one, a hint. It never
raises, whatever JSON it is given.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jsonschema
import jsonschema.exceptions
import msgspec
from pydantic import ValidationError

from wpa.errors import Problem
from wpa.model.limits import Limits
from wpa.model.steptype import StepSignature
from wpa.plan.compile import Plan, compile_document
from wpa.plan.documents import Decision, Document, Step
from wpa.plan.names import check_names
from wpa.plan.shapes import check_inputs
from wpa.plan.suggest import suggest

__all__ = ["check"]

Catalog = Mapping[str, StepSignature]


def check(document: Any, catalog: Catalog | None = None, limits: Limits | None = None) -> list[Problem]:
    """All problems of a definition; empty where it may be deployed.

    Args:
        document: what was parsed from JSON or YAML; anything.
        catalog: the installed step types, or None to leave step types unchecked.
        limits: how large a definition may be.
    """
    limits = limits or Limits()
    if not isinstance(document, dict):
        return [Problem("$", "a definition must be a JSON object", 'start with {"id": ..., "steps": [...]}')]
    if (size := _size_problem(document, limits)) is not None:
        return [size]
    try:
        parsed = Document.model_validate(document)
    except ValidationError as error:
        return [_translate(item) for item in error.errors(include_url=False, include_context=False)]
    problems = [*_duplicates(parsed), *_targets(parsed)]
    if problems:
        return problems
    problems = [*_input_schema(parsed), *_cycles(parsed)]
    if problems:
        return problems
    plan = compile_document(parsed, "")
    problems = [*plan.problems, *_unreachable(plan), *check_names(plan), *_step_types(parsed, catalog)]
    if catalog is not None:
        problems += check_inputs(parsed, catalog)
    return sorted(problems, key=lambda problem: _place(problem.path))


def _place(path: str) -> tuple[str, int, str]:
    """Sort by where in the document a problem is: steps by number, not by the number's letters."""
    head, bracket, rest = path.partition("[")
    number, _, tail = rest.partition("]")
    return (head, int(number), tail) if bracket and number.isdigit() else (head, -1, tail)


# -- shape -----------------------------------------------------------------------------------


def _size_problem(document: dict[str, Any], limits: Limits) -> Problem | None:
    steps = document.get("steps")
    if isinstance(steps, list) and len(steps) > limits.steps_max:
        return Problem("$.steps", f"{len(steps)} steps; the most is {limits.steps_max}")
    try:
        size = len(msgspec.json.encode(document))
    except (RecursionError, TypeError, ValueError, OverflowError) as error:
        return Problem("$", f"the definition can't be kept as JSON: {error}")
    if size > limits.task_bytes_max:
        return Problem("$", f"the definition has {size} bytes; the most is {limits.task_bytes_max}")
    depth, level = 0, [document]
    while level:
        depth += 1
        if depth > limits.nesting_max:
            return Problem("$", f"the definition is nested more than {limits.nesting_max} levels deep")
        inner: list[Any] = []
        for item in level:
            children = item.values() if isinstance(item, dict) else item
            inner += [child for child in children if isinstance(child, dict | list)]
        level = inner
    return None


_FIELDS = {
    "step": sorted(field.alias or name for name, field in Step.model_fields.items()),
    "decision": sorted(field.alias or name for name, field in Decision.model_fields.items()),
    "": sorted(field.alias or name for name, field in Document.model_fields.items()),
}


def _translate(error: Any) -> Problem:
    """A complaint of pydantic's, in the words of the definition language."""
    location = list(error["loc"])
    kind = "step"
    parts: list[str] = []
    for position, part in enumerate(location):
        if isinstance(part, int):
            parts.append(f"[{part}]")
        elif part in ("step", "decision") and position == 2:
            kind = str(part)
        else:
            parts.append(f".{part}")
    path = "$" + "".join(parts)
    code, last = error["type"], str(location[-1]) if location else ""
    if code == "extra_forbidden":
        known = _FIELDS[""] if len(location) == 1 else _FIELDS[kind] if len(location) == 4 else []
        return Problem(path, f"unknown field {last!r}", suggest(last, known) if known else "")
    if code == "missing":
        return Problem(path, f"{last!r} is missing")
    if code == "string_pattern_mismatch":
        return Problem(
            path, f"{str(error['input'])[:60]!r} is not a valid name", "use A-Z, a-z, 0-9, _ and -"
        )
    if code == "model_type":
        return Problem(path, "must be a JSON object")
    message = str(error["msg"]).removeprefix("Value error, ").replace("Input should be", "must be")
    return Problem(path, message[:1].lower() + message[1:])


def _duplicates(document: Document) -> list[Problem]:
    seen: dict[str, int] = {}
    problems = []
    for index, item in enumerate(document.steps):
        if item.id in seen:
            message = f"the id {item.id!r} is taken by $.steps[{seen[item.id]}]"
            problems.append(Problem(f"$.steps[{index}].id", message, "ids must be unique"))
        else:
            seen[item.id] = index
    return problems


def _targets(document: Document) -> list[Problem]:
    """Every id in ``needs``, ``next`` and ``default`` must be a step of the plan."""
    known = {item.id for item in document.steps}
    problems = []

    def look(name: str, path: str) -> None:
        if name not in known:
            problems.append(Problem(path, f"there is no step {name!r}", suggest(name, known)))

    for index, item in enumerate(document.steps):
        path = f"$.steps[{index}]"
        for number, need in enumerate(item.needs):
            look(need, f"{path}.needs[{number}]")
        if isinstance(item, Decision):
            for number, branch in enumerate(item.switch):
                for target in branch.next:
                    look(target, f"{path}.switch[{number}].next")
            for target in item.default or ():
                look(target, f"{path}.default")
    return problems


def _input_schema(document: Document) -> list[Problem]:
    if document.input is None or isinstance(document.input, bool):
        return []
    try:
        jsonschema.Draft202012Validator.check_schema(document.input)
    except jsonschema.exceptions.SchemaError as error:
        path = "$.input" + error.json_path.removeprefix("$")
        return [Problem(path, f"not a JSON Schema (Draft 2020-12): {error.message[:300]}")]
    except RecursionError:
        return [Problem("$.input", "the schema is nested too deep")]
    return [
        Problem(path, f"the reference {target!r} leads outside the document", "use '#/$defs/...'")
        for path, target in _references(document.input, "$.input")
        if not target.startswith("#")
    ]


def _references(schema: Any, path: str) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    if isinstance(schema, dict):
        for key, value in schema.items():
            if key in ("$ref", "$dynamicRef") and isinstance(value, str):
                found.append((f"{path}.{key}", value))
            else:
                found += _references(value, f"{path}.{key}")
    elif isinstance(schema, list):
        for index, item in enumerate(schema):
            found += _references(item, f"{path}[{index}]")
    return found


# -- graph -----------------------------------------------------------------------------------


def _cycles(document: Document) -> list[Problem]:
    """One problem for each cycle that a depth-first walk meets; iterative, plans may be long."""
    index_of = {item.id: index for index, item in enumerate(document.steps)}
    before: list[list[int]] = [[index_of[need] for need in item.needs] for item in document.steps]
    for index, item in enumerate(document.steps):
        if isinstance(item, Decision):
            for target in [t for branch in item.switch for t in branch.next] + list(item.default or ()):
                before[index_of[target]].append(index)
    state = [0] * len(before)  # 0 unseen, 1 on the path, 2 done
    problems = []
    for root in range(len(before)):
        if state[root]:
            continue
        path, walks = [root], [iter(before[root])]
        state[root] = 1
        while path:
            following = next(walks[-1], None)
            if following is None:
                state[path.pop()] = 2
                walks.pop()
            elif state[following] == 1:
                names = [document.steps[i].id for i in path[path.index(following) :]]
                shown = " -> ".join([*reversed(names), names[-1]])
                message = f"these steps wait for each other: {shown}"
                problems.append(Problem(f"$.steps[{following}]", message, "break the cycle"))
            elif state[following] == 0:
                state[following] = 1
                path.append(following)
                walks.append(iter(before[following]))
    return problems


def _unreachable(plan: Plan) -> list[Problem]:
    """A step that needs two branches of one decision, of which only one is ever taken, never runs.

    Only certain cases are reported: a step that waits for itself is a cycle, and joins run with some of
    their needs skipped. What is left is a decision whose branch comes after one that is always taken.
    """
    problems = []
    for node in plan.nodes:
        reached: set[int] = set()
        always = False
        for number, branch in enumerate(node.branches):
            if always:
                lost = [
                    t for t in branch.targets if t not in reached and plan.nodes[t].gates == (node.index,)
                ]
                for target in lost:
                    message = (
                        f"step {plan.nodes[target].id!r} can't be reached: an earlier branch is always taken"
                    )
                    problems.append(Problem(f"$.steps[{node.index}].switch[{number}].next", message))
            reached.update(branch.targets)
            texts = [expression.text for _, expression in branch.when.expressions]
            always = always or texts == ["true"]
        if always:
            for target in node.default:
                if target not in reached and plan.nodes[target].gates == (node.index,):
                    message = (
                        f"step {plan.nodes[target].id!r} can't be reached: an earlier branch is always taken"
                    )
                    problems.append(Problem(f"$.steps[{node.index}].default", message))
    return problems


def _step_types(document: Document, catalog: Catalog | None) -> list[Problem]:
    if catalog is None:
        return []
    problems = []
    for index, item in enumerate(document.steps):
        if isinstance(item, Decision) or item.queue:
            continue
        uses = [(item.uses, f"$.steps[{index}].uses")]
        if item.compensate is not None:
            uses.append((item.compensate.uses, f"$.steps[{index}].compensate.uses"))
        for name, path in uses:
            if name not in catalog:
                hint = suggest(name, catalog, "install its plugin, or see `wpa plugins`")
                problems.append(Problem(path, f"no installed plugin has step type {name!r}", hint))
    return problems
