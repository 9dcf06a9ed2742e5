"""Everything that can be wrong with a definition, found before anything of it runs.

``check`` gives all problems at once, each with its JSON path and, where there is one, a hint. It never
raises, whatever JSON it is given.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from pydantic import ValidationError

from wpa.errors import Problem
from wpa.model.limits import Limits
from wpa.model.recordable import encode_data
from wpa.model.steptype import StepSignature
from wpa.plan.check_starts import check_starts
from wpa.plan.compile import compile_document
from wpa.plan.complaints import translate
from wpa.plan.documents import Decision, Document, Step
from wpa.plan.names import check_names
from wpa.plan.reach import cycles, unreachable
from wpa.plan.shapes import check_inputs
from wpa.plan.suggest import suggest
from wpa.plan.validators import check_effort, check_schema
from wpa.plan.waits import SIGNATURES

__all__ = ["check"]

Catalog = Mapping[str, StepSignature]

EXPRESSIONS_MAX: Final = 10_000
EXPRESSION_CHARS_MAX: Final = 512 * 1024
"""Of a definition in all. Each worker compiles them, and has its event loop for nothing else meanwhile."""
_BARE: Final = frozenset({"if", "when", "until", "while", "filter", "in"})
"""Fields that are expressions, with or without ``${ }`` around them."""


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
        return [translate(item, Document) for item in error.errors(include_url=False, include_context=False)]
    problems = [*_duplicates(parsed), *_targets(parsed)]
    if problems:
        return problems
    schemas = [parsed.input, *(signal.payload for signal in parsed.signals.values())]
    if problems := check_effort(schemas):
        return problems
    problems = [*check_schema(parsed.input, "$.input"), *_repetitions(parsed), *cycles(parsed)]
    if problems:
        return problems
    plan = compile_document(parsed, "")
    problems = [*plan.problems, *unreachable(plan), *check_names(plan), *plan.signals.problems()]
    problems += [*_step_types(parsed, catalog), *check_starts(plan)]
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
        size = len(encode_data(document))
    except (RecursionError, TypeError, ValueError, OverflowError) as error:
        return Problem("$", f"the definition can't be kept as JSON: {error}")
    if size > limits.task_bytes_max:
        return Problem("$", f"the definition has {size} bytes; the most is {limits.task_bytes_max}")
    depth, level = 0, [document]
    expressions = chars = 0
    while level:
        depth += 1
        if depth > limits.nesting_max:
            return Problem("$", f"the definition is nested more than {limits.nesting_max} levels deep")
        inner: list[Any] = []
        for item in level:
            for key, child in item.items() if isinstance(item, dict) else enumerate(item):
                if isinstance(child, dict | list):
                    inner.append(child)
                elif isinstance(child, str) and ("${" in child or key in _BARE):
                    expressions += max(1, child.count("${"))
                    chars += len(child)
        level = inner
    return _effort_problem(expressions, chars)


def _effort_problem(expressions: int, chars: int) -> Problem | None:
    if expressions > EXPRESSIONS_MAX:
        return Problem("$", f"the definition has {expressions} expressions; the most is {EXPRESSIONS_MAX}")
    if chars > EXPRESSION_CHARS_MAX:
        most = EXPRESSION_CHARS_MAX
        return Problem("$", f"the texts with expressions have {chars} characters in all; the most is {most}")
    return None


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


def _repetitions(document: Document) -> list[Problem]:
    return [
        Problem(f"$.steps[{index}].repeat", "a step has either foreach or repeat", "repeat a core.workflow")
        for index, item in enumerate(document.steps)
        if isinstance(item, Step) and item.foreach is not None and item.repeat is not None
    ]


def _step_types(document: Document, catalog: Catalog | None) -> list[Problem]:
    if catalog is None:
        return []
    problems = []
    for index, item in enumerate(document.steps):
        if isinstance(item, Decision) or item.queue:
            continue
        uses = [] if item.uses in SIGNATURES else [(item.uses, f"$.steps[{index}].uses")]
        if item.compensate is not None and item.compensate.uses not in SIGNATURES:
            uses.append((item.compensate.uses, f"$.steps[{index}].compensate.uses"))
        for name, path in uses:
            if name not in catalog:
                hint = suggest(name, [*catalog, *SIGNATURES], "install its plugin, or see `wpa plugins`")
                problems.append(Problem(path, f"no installed plugin has step type {name!r}", hint))
    return problems
