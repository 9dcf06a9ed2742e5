"""JSON Schemas within definitions: of inputs, and of signals (Draft 2020-12).

The library is imported when it is first needed: most workers see no schema, and need not hold it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from wpa.errors import Problem

if TYPE_CHECKING:
    from jsonschema.protocols import Validator

__all__ = ["check_schema", "misfits", "validator"]

MISFITS_MAX: Final = 50


def validator(schema: dict[str, Any] | bool | None) -> Validator | None:
    """The compiled schema; None where anything fits. References outside the document are refused."""
    if schema is None or schema is True:
        return None
    import jsonschema
    from referencing import Registry

    # A registry of its own, empty: nothing is ever fetched.
    empty: Any = Registry()
    return jsonschema.Draft202012Validator(schema, registry=empty)


def misfits(validator: Validator | None, data: Any, path: str) -> list[Problem]:
    """Everything about ``data`` that a schema refuses; ``path`` is where the data is."""
    if validator is None:
        return []
    import referencing.exceptions

    problems = []
    try:
        for error in validator.iter_errors(data):
            problems.append(Problem(path + error.json_path.removeprefix("$"), error.message[:500]))
            if len(problems) >= MISFITS_MAX:
                break
    except (referencing.exceptions.Unresolvable, RecursionError) as error:
        reason = "it refers to itself without end" if isinstance(error, RecursionError) else str(error)
        problems.append(Problem(path, f"the definition's schema can't be followed: {reason[:300]}"))
    return problems


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
    return [
        Problem(where, f"the reference {target!r} leads outside the document", "use '#/$defs/...'")
        for where, target in _references(schema, path)
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
