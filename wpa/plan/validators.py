"""JSON Schemas within definitions: of inputs, and of signals (Draft 2020-12).

Schemas and what is held against them come from users, and both are looked at on a worker's event loop. So
whatever they are, the answer is a list of problems, and it comes in bounded time: the work is counted
(references can double it at every level), patterns are matched in linear time (:mod:`wpa.plan.patterns`),
and equal items are found by hashing.

The library is imported when it is first needed: most workers see no schema, and need not hold it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from wpa.errors import Problem
from wpa.plan.patterns import PatternError, check_pattern, found

if TYPE_CHECKING:
    from jsonschema.protocols import Validator

__all__ = ["STEPS_MAX", "check_schema", "misfits", "validator"]

MISFITS_MAX: Final = 50
PATH_CHARS_MAX: Final = 400
STEPS_MAX: Final = 500_000
"""So many keywords are evaluated to hold data against a schema; some seconds' work."""
REFERENCE_STEPS: Final = 5
"""What following a reference costs, beside evaluating a keyword."""

Keyword = Callable[[Any, Any, Any, Any], Any]


class _TooMuch(Exception):
    """More work than a worker does for one document."""


class _Effort:
    """Counts the work on one document. All is done on one thread, from the first step to the last."""

    def __init__(self) -> None:
        self.steps = 0

    def counted(self, name: str, keyword: Keyword) -> Keyword:
        cost = REFERENCE_STEPS if name in ("$ref", "$dynamicRef") else 1

        def evaluate(validator: Any, value: Any, instance: Any, schema: Any) -> Any:
            self.steps += cost
            if self.steps > STEPS_MAX:
                raise _TooMuch
            return keyword(validator, value, instance, schema)

        return evaluate


_EFFORT: Final = _Effort()


@lru_cache(maxsize=1)
def _dialect() -> Any:
    """Draft 2020-12, with what could take for ever replaced by what can't."""
    import jsonschema

    own: dict[str, Keyword] = {
        "pattern": _pattern,
        "patternProperties": _pattern_properties,
        "uniqueItems": _unique_items,
    }
    keywords = {**jsonschema.Draft202012Validator.VALIDATORS, **own}
    extend: Any = jsonschema.validators.extend
    return extend(
        jsonschema.Draft202012Validator,
        {name: _EFFORT.counted(name, keyword) for name, keyword in keywords.items()},
    )


def validator(schema: dict[str, Any] | bool | None) -> Validator | None:
    """The compiled schema; None where anything fits. References outside the document are refused."""
    if schema is None or schema is True:
        return None
    from referencing import Registry

    # A registry of its own, empty: nothing is ever fetched.
    empty: Any = Registry()
    compiled: Validator = _dialect()(schema, registry=empty)
    return compiled


def misfits(validator: Validator | None, data: Any, path: str) -> list[Problem]:
    """Everything about ``data`` that a schema refuses; ``path`` is where the data is. Never raises."""
    if validator is None:
        return []
    problems: list[Problem] = []
    _EFFORT.steps = 0
    try:
        for error in validator.iter_errors(data):
            where = (path + error.json_path.removeprefix("$"))[:PATH_CHARS_MAX]
            problems.append(Problem(where, error.message[:500]))
            if len(problems) >= MISFITS_MAX:
                break
    except _TooMuch:
        message = f"it takes more than {STEPS_MAX:,} steps to hold it against the definition's schema"
        problems.append(Problem(path, message, "send less at a time, or simplify the schema"))
    except Exception as error:  # a schema may lead to anything that the library has no answer to
        reason = "it refers to itself without end" if isinstance(error, RecursionError) else str(error)
        problems.append(Problem(path, f"the definition's schema can't be followed: {reason[:300]}"))
    return problems


# -- keywords --------------------------------------------------------------------------------


def _error(message: str) -> Exception:
    import jsonschema

    return jsonschema.ValidationError(message)


def _pattern(validator: Any, pattern: str, instance: Any, schema: Any) -> Iterator[Any]:
    if validator.is_type(instance, "string") and not found(pattern, instance):
        yield _error(f"{instance[:200]!r} does not match {pattern!r}")


def _pattern_properties(
    validator: Any, patterns: dict[str, Any], instance: Any, schema: Any
) -> Iterator[Any]:
    if not validator.is_type(instance, "object"):
        return
    for pattern, inner in patterns.items():
        for key, value in instance.items():
            if found(pattern, key):
                yield from validator.descend(value, inner, path=key, schema_path=pattern)


def _unique_items(validator: Any, wanted: bool, instance: Any, schema: Any) -> Iterator[Any]:
    if wanted and validator.is_type(instance, "array") and len(set(map(_hashed, instance))) < len(instance):
        yield _error("the items are not unique")


def _hashed(value: Any) -> Any:
    """Equal for what JSON Schema calls equal: 1 and 1.0 are, 1 and true are not."""
    if isinstance(value, bool):
        return (bool, value)
    if isinstance(value, list):
        return (list, tuple(map(_hashed, value)))
    if isinstance(value, dict):
        return (dict, frozenset((key, _hashed(item)) for key, item in value.items()))
    return value


# -- schemas themselves ----------------------------------------------------------------------


def check_schema(schema: dict[str, Any] | bool | None, path: str) -> list[Problem]:
    """What is wrong with a schema itself; ``path`` is where it is."""
    if schema is None or isinstance(schema, bool):
        return []
    import jsonschema
    import jsonschema.exceptions

    try:
        jsonschema.Draft202012Validator.check_schema(schema)
    except jsonschema.exceptions.SchemaError as error:
        where = path + error.json_path.removeprefix("$")
        return [Problem(where, f"not a JSON Schema (Draft 2020-12): {error.message[:300]}")]
    except RecursionError:
        return [Problem(path, "the schema is nested too deep")]
    return [*_foreign(schema, path), *_bad_patterns(schema, path)]


def _foreign(schema: dict[str, Any], path: str) -> Iterator[Problem]:
    for where, word, target in _keywords(schema, path, ("$ref", "$dynamicRef")):
        if isinstance(target, str) and not target.startswith("#"):
            message = f"the reference {target!r} leads outside the document"
            yield Problem(f"{where}.{word}", message, "use '#/$defs/...'")


def _bad_patterns(schema: dict[str, Any], path: str) -> Iterator[Problem]:
    for where, word, value in _keywords(schema, path, ("pattern", "patternProperties")):
        named = value if word == "patternProperties" else [value]
        for pattern in named if isinstance(named, dict | list) else ():
            if not isinstance(pattern, str):
                continue  # a property of that name
            try:
                check_pattern(pattern)
            except PatternError as error:
                yield Problem(
                    f"{where}.{word}", str(error), "write it without look-around and back references"
                )


def _keywords(schema: Any, path: str, words: tuple[str, ...]) -> Iterator[tuple[str, str, Any]]:
    """Every use of the ``words`` within a schema: where, which, and what it says."""
    if isinstance(schema, dict):
        for key, value in schema.items():
            if key in words:
                yield path, key, value
            yield from _keywords(value, f"{path}.{key}", words)
    elif isinstance(schema, list):
        for index, item in enumerate(schema):
            yield from _keywords(item, f"{path}[{index}]", words)
