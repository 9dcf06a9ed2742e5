"""JSON Schemas within definitions: of inputs, and of signals (Draft 2020-12).

Schemas and what is held against them come from users, and both are looked at on a worker's event loop. So
whatever they are, the answer is a list of problems, and it comes in bounded time: the work is counted
(references can double it at every level; :mod:`wpa.plan.keywords`).

The library is imported when it is first needed: most workers see no schema, and need not hold it.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote

from wpa.errors import Problem
from wpa.plan.keywords import STEPS_MAX, Effort, TooMuch, own_keywords
from wpa.plan.pattern_price import price
from wpa.plan.patterns import PatternError, check_pattern

if TYPE_CHECKING:
    from jsonschema.protocols import Validator

__all__ = ["check_effort", "check_schema", "misfits", "validator"]

MISFITS_MAX: Final = 50
PATH_CHARS_MAX: Final = 400
SCHEMAS_MAX: Final = 5_000
"""So many schemas may be in those of a definition; holding them to the meta-schema takes two seconds."""
PATTERNS_STEPS_MAX: Final = 100_000
"""What compiling the patterns in them may cost (:func:`wpa.plan.pattern_price.price`): about a second."""
_EFFORT: Final = Effort()


@lru_cache(maxsize=1)
def _dialect() -> Any:
    """Draft 2020-12, with what could take for ever replaced by what can't."""
    import attrs
    import jsonschema

    keywords = {**jsonschema.Draft202012Validator.VALIDATORS, **own_keywords(_EFFORT)}
    extend: Any = jsonschema.validators.extend
    dialect = extend(
        jsonschema.Draft202012Validator,
        {name: _EFFORT.counted(name, keyword) for name, keyword in keywords.items()},
    )
    fields = [(field.name, field.alias) for field in attrs.fields(dialect) if field.init]

    def evolve(self: Any, **changes: Any) -> Any:
        # The library's own goes over to its own keywords wherever a schema within says ``$schema``.
        return dialect(**{alias: getattr(self, name) for name, alias in fields} | changes)

    dialect.evolve = evolve
    return dialect


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
    _EFFORT.begin(validator.schema)
    try:
        for error in validator.iter_errors(data):
            where = (path + error.json_path.removeprefix("$"))[:PATH_CHARS_MAX]
            problems.append(Problem(where, error.message[:500]))
            if len(problems) >= MISFITS_MAX:
                break
    except TooMuch:
        message = f"it takes more than {STEPS_MAX:,} steps to hold it against the definition's schema"
        problems.append(Problem(path, message, "send less at a time, or simplify the schema"))
    except Exception as error:  # a schema may lead to anything that the library has no answer to
        reason = "it refers to itself without end" if isinstance(error, RecursionError) else str(error)
        problems.append(Problem(path, f"the definition's schema can't be followed: {reason[:300]}"))
    return problems


# -- schemas themselves ----------------------------------------------------------------------


def check_effort(schemas: list[Any]) -> list[Problem]:
    """Whether the schemas of a definition are too much, all together, to be looked at one by one."""
    count = sum(map(_schemas, schemas))
    if count > SCHEMAS_MAX:
        message = f"the definition's JSON Schemas have {count:,} schemas within; the most is {SCHEMAS_MAX:,}"
        return [Problem("$", message, "say less, or check it in a step")]
    uses = [use for schema in schemas for use in _keywords(schema, "", ("pattern", "patternProperties"))]
    steps = sum(price(pattern, 0) for _, word, value in uses for pattern in _patterns(word, value))
    if steps > PATTERNS_STEPS_MAX:
        message = "the patterns in the definition's JSON Schemas take too long to be compiled"
        return [Problem("$", message, "write fewer, and repeat less: a{1,1000} is a thousand letters")]
    return []


def _schemas(value: Any) -> int:
    """At least as many as there are schemas in a schema."""
    if isinstance(value, bool):
        return 1
    members = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return isinstance(value, dict) + sum(map(_schemas, members))


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
    return [*_foreign(schema, path), *_dangling(schema, path), *_bad_patterns(schema, path)]


def _foreign(schema: dict[str, Any], path: str) -> Iterator[Problem]:
    for where, word, target in _keywords(schema, path, ("$ref", "$dynamicRef")):
        if isinstance(target, str) and not target.startswith("#"):
            message = f"the reference {target!r} leads outside the document"
            yield Problem(f"{where}.{word}", message, "use '#/$defs/...'")


def _dangling(schema: dict[str, Any], path: str) -> Iterator[Problem]:
    """References to what is not there: whatever comes to them would be refused, for good."""
    if any(where != path and isinstance(id, str) for where, _, id in _keywords(schema, path, ("$id",))):
        return  # what is below an $id refers to that, and not to the whole
    anchors = {anchor for _, _, anchor in _keywords(schema, path, ("$anchor", "$dynamicAnchor"))
               if isinstance(anchor, str)}  # fmt: skip
    for where, word, target in _keywords(schema, path, ("$ref", "$dynamicRef")):
        if not isinstance(target, str) or not target.startswith("#"):
            continue
        fragment = unquote(target.removeprefix("#"))
        if fragment not in anchors and not _points_at_schema(schema, fragment):
            message = f"the reference {target[:PATH_CHARS_MAX]!r} leads to no schema"
            yield Problem(f"{where}.{word}", message, "see to it that '#/$defs/NAME' is in the same schema")


def _points_at_schema(schema: Any, pointer: str) -> bool:
    """Whether a JSON pointer leads from ``schema`` to one; the empty one leads to itself."""
    begin, *parts = pointer.split("/")
    if begin:
        return False
    for part in parts:
        name = part.replace("~1", "/").replace("~0", "~")
        if isinstance(schema, list) and name.isdecimal() and len(name) < 10 and int(name) < len(schema):
            schema = schema[int(name)]
        elif isinstance(schema, dict) and name in schema:
            schema = schema[name]
        else:
            return False
    return isinstance(schema, dict | bool)


def _bad_patterns(schema: dict[str, Any], path: str) -> Iterator[Problem]:
    for where, word, value in _keywords(schema, path, ("pattern", "patternProperties")):
        for pattern in _patterns(word, value):
            try:
                check_pattern(pattern)
            except PatternError as error:
                yield Problem(
                    f"{where}.{word}", str(error), "write it without look-around and back references"
                )


def _patterns(word: str, value: Any) -> list[str]:
    """The patterns that one of the two keywords says; none where it is a property of that name."""
    named = value if word == "patternProperties" else [value]
    return [one for one in named if isinstance(one, str)] if isinstance(named, dict | list) else []


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
