"""Functions as step types: the ``@step`` decorator, and what the type hints are turned into.

The hints are read once, when the plugin is imported. They give three things: how JSON inputs become
keyword arguments (checked), how what the function returns becomes JSON again, and the two JSON Schemas
that a definition is checked against when it is deployed.
"""

from __future__ import annotations

import inspect
import math
import typing
from collections.abc import Callable
from typing import Any, TypeVar, get_type_hints

import msgspec
from pydantic import BaseModel, TypeAdapter, ValidationError

from wpa.errors import StepFailed, WpaError
from wpa.model.steptype import StepSignature
from wpa.ports.steps import Isolation, StepContext, StepType

__all__ = ["StepDeclarationError", "step", "step_type_of"]

F = TypeVar("F", bound=Callable[..., Any])

PLAIN = (dict, list, str, int, float, bool, type(None))


class StepDeclarationError(WpaError, TypeError):
    """A function that can't be a step: raised when its plugin is imported."""


def step(name: str, *, isolation: Isolation | None = None, description: str = "") -> Callable[[F], F]:
    """Declare a function a step type.

    Args:
        name: the step type's name, ``<plugin>.<verb>``, as a definition's ``uses`` has it.
        isolation: ``async`` (the default for ``async def``), ``thread`` (the default for ``def``), or
            ``process``: a process of its own that can be killed; the function must be at a module's top.
        description: one line for ``wpa plugins``; by default the docstring's first.

    Returns the function itself, still callable, with its step type as ``__wpa_step__``.
    Raises StepDeclarationError where the function can't be a step.
    """
    _check_name(name)

    def declare(fn: F) -> F:
        fn.__wpa_step__ = _declare(name, fn, isolation, description)  # type: ignore[attr-defined]
        return fn

    return declare


def step_type_of(declared: object) -> StepType | None:
    """The step type behind what a plugin's hook returned, or None where it is none."""
    if isinstance(declared, StepType):
        return declared
    found = getattr(declared, "__wpa_step__", None)
    return found if isinstance(found, StepType) else None


def _check_name(name: str) -> None:
    parts = name.split(".")
    if len(parts) < 2 or not all(part.isidentifier() and part.isascii() for part in parts):
        raise StepDeclarationError(f"step type {name!r}: the name must look like 'payments.charge'")


def _declare(name: str, fn: Callable[..., Any], isolation: Isolation | None, description: str) -> StepType:
    is_async = inspect.iscoroutinefunction(fn)
    chosen = isolation or ("async" if is_async else "thread")
    if (chosen == "async") != is_async:
        raise StepDeclarationError(
            f"step type {name}: isolation={chosen!r} does not go with "
            f"{'an async' if is_async else 'a plain'} function"
        )
    if chosen == "process" and "<locals>" in fn.__qualname__:
        raise StepDeclarationError(
            f"step type {name}: isolation='process' needs a function at a module's top"
        )
    try:
        hints = get_type_hints(fn, include_extras=True)
    except Exception as error:
        raise StepDeclarationError(f"step type {name}: its type hints can't be read: {error}") from error
    parameters = list(inspect.signature(fn).parameters.values())
    takes_context = bool(parameters) and (
        parameters[0].name == "ctx" or hints.get(parameters[0].name) is StepContext
    )
    if takes_context:
        parameters = parameters[1:]
    bind, input_schema = _inputs(name, parameters, hints)
    dump, output_schema = _output(name, hints.get("return", Any))
    doc = (inspect.getdoc(fn) or "").strip().partition("\n")[0]
    return StepType(
        name=name,
        fn=fn,
        isolation=chosen,
        takes_context=takes_context,
        bind=bind,
        dump=dump,
        signature=StepSignature(
            name=name, input_schema=input_schema, output_schema=output_schema, description=description or doc
        ),
        source=fn.__module__,
    )


# -- inputs ----------------------------------------------------------------------------------


def _inputs(
    name: str, parameters: list[inspect.Parameter], hints: dict[str, Any]
) -> tuple[Callable[[Any], dict[str, Any]], dict[str, Any]]:
    fields: list[Any] = []
    adapters: dict[str, TypeAdapter[Any]] = {}
    schemas: dict[str, Any] = {}
    open_ended = False
    for parameter in parameters:
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            open_ended = True
            continue
        if parameter.kind in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.POSITIONAL_ONLY):
            raise StepDeclarationError(
                f"step type {name}: parameter {parameter.name} can't be passed by name"
            )
        hint = hints.get(parameter.name, Any)
        if _needs_pydantic(hint):
            adapters[parameter.name] = TypeAdapter(hint)
            schemas[parameter.name] = adapters[parameter.name].json_schema()
            hint = Any
        if parameter.default is inspect.Parameter.empty:
            fields.append((parameter.name, hint))
        else:
            # UNSET is never passed on: the function's own default applies.
            fields.append(
                (parameter.name, hint | msgspec.UnsetType if hint is not Any else Any, msgspec.UNSET)
            )
    try:
        model: Any = msgspec.defstruct("Inputs", fields, forbid_unknown_fields=not open_ended, kw_only=True)
        schema = _input_schema(model, parameters, schemas, open_ended)
    except (TypeError, NameError) as error:
        raise StepDeclarationError(f"step type {name}: inputs: {error}") from error
    names = tuple(field[0] for field in fields)
    return _binder(model, names, adapters, open_ended), schema


def _binder(
    model: Any, names: tuple[str, ...], adapters: dict[str, TypeAdapter[Any]], open_ended: bool
) -> Callable[[Any], dict[str, Any]]:
    convert, unset = msgspec.convert, msgspec.UNSET

    def bind(inputs: Any) -> dict[str, Any]:
        if inputs is None:
            inputs = {}
        try:
            values = convert(inputs, model)
        except msgspec.ValidationError as error:
            raise StepFailed(f"inputs: {error}", type="InvalidInput", retryable=False) from None
        arguments = {}
        for key in names:
            value = getattr(values, key)
            if value is not unset:
                arguments[key] = value
        for key, adapter in adapters.items():
            if key in arguments:
                try:
                    arguments[key] = adapter.validate_python(arguments[key])
                except ValidationError as error:
                    where = error.errors()[0]
                    path = ".".join(str(part) for part in (key, *where["loc"]))
                    raise StepFailed(
                        f"inputs: {where['msg']} - at `$.{path}`", type="InvalidInput", retryable=False
                    ) from None
        if open_ended:
            arguments |= {key: value for key, value in inputs.items() if key not in names}
        return arguments

    return bind


def _input_schema(
    model: Any, parameters: list[inspect.Parameter], schemas: dict[str, Any], open_ended: bool
) -> dict[str, Any]:
    schema = _schema(model)
    properties = schema.get("properties", {})
    for key, replaced in schemas.items():
        properties[key] = replaced
    for parameter in parameters:
        default = parameter.default
        if parameter.name in properties and isinstance(default, (str, int, float, bool)):
            properties[parameter.name] = {**properties[parameter.name], "default": default}
    if open_ended:
        schema["additionalProperties"] = True
    schema.pop("title", None)
    return schema


def _needs_pydantic(hint: Any) -> bool:
    if isinstance(hint, type) and issubclass(hint, BaseModel):
        return True
    return any(_needs_pydantic(part) for part in typing.get_args(hint))


# -- outputs ---------------------------------------------------------------------------------


def _output(name: str, hint: Any) -> tuple[Callable[[Any], Any], dict[str, Any]]:
    if _needs_pydantic(hint):
        adapter: TypeAdapter[Any] = TypeAdapter(hint)

        def dump_pydantic(value: Any) -> Any:
            try:
                return _finite(adapter.dump_python(adapter.validate_python(value), mode="json"))
            except (ValueError, TypeError) as error:
                raise _bad_output(error) from None

        return dump_pydantic, adapter.json_schema(mode="serialization")
    if hint is None or hint is type(None):
        return _dump_plain, {"type": "null"}
    if hint is Any or hint in PLAIN:
        return _dump_plain, {} if hint is Any else _schema(hint)
    try:
        schema = _schema(hint)
    except TypeError as error:
        raise StepDeclarationError(f"step type {name}: output: {error}") from error
    return _dump_typed, schema


def _dump_plain(value: Any) -> Any:
    """Builtins pass as they are (the engine's encoder finds what is wrong inside); the rest is converted."""
    return value if type(value) in PLAIN else _dump_typed(value)


def _dump_typed(value: Any) -> Any:
    try:
        if isinstance(value, BaseModel):
            return value.model_dump(mode="json")
        return msgspec.to_builtins(value, str_keys=True)
    except (TypeError, ValueError, RecursionError) as error:
        raise _bad_output(error) from None


def _bad_output(error: Exception) -> StepFailed:
    message = f"the step returned what JSON can't hold: {error}"
    return StepFailed(message, type="InvalidOutput", retryable=False)


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{value} is not JSON")
    return value


def _schema(hint: Any) -> dict[str, Any]:
    """The JSON Schema of a type, self-contained."""
    schema: dict[str, Any] = msgspec.json.schema(hint)
    definitions = schema.get("$defs", {})
    reference = schema.get("$ref", "")
    if reference.startswith("#/$defs/") and len(definitions) >= 1:
        top = definitions[reference.removeprefix("#/$defs/")]
        rest = {key: value for key, value in definitions.items() if value is not top}
        return {**top, **({"$defs": rest} if rest else {})}
    return schema
