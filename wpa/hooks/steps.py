"""Functions as step types: the ``@step`` decorator, and what the type hints are turned into.

The hints are read once, when the plugin is imported. They give three things: how JSON inputs become
keyword arguments (checked), how what the function returns becomes JSON again (checked as well), and the
two JSON Schemas that a definition is checked against when it is deployed.

Inputs are copied on their way in: what a step does to its arguments changes neither the definition's
constants nor what earlier steps returned, which other steps and other executions will be given, too.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable
from typing import Any, TypeVar, get_type_hints

import msgspec
from pydantic import BaseModel, TypeAdapter, ValidationError

from wpa.errors import StepFailed, WpaError
from wpa.model.hints import needs_pydantic
from wpa.model.steptype import StepSignature
from wpa.ports.steps import Isolation, StepContext, StepType

__all__ = ["StepDeclarationError", "input_schema_of", "step", "step_type_of"]

F = TypeVar("F", bound=Callable[..., Any])

PLAIN = (dict, list, str, int, float, bool, type(None))
OPEN = (dict[str, Any], list[Any])
"""These say no more than ``dict`` and ``list``: what is wrong inside, the engine's encoder finds."""
SCALARS = (str, int, float, bool, type(None))


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


def input_schema_of(fn: Callable[..., Any]) -> dict[str, Any]:
    """The JSON Schema of an object whose members are passed to ``fn`` by name; {} where it can't be told."""
    try:
        hints = get_type_hints(fn, include_extras=True)
        return _inputs(fn.__name__, list(inspect.signature(fn).parameters.values()), hints, "")[1]
    except Exception:
        return {}


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
    if chosen == "process" and ("<locals>" in fn.__qualname__ or fn.__module__ == "__main__"):
        raise StepDeclarationError(
            f"step type {name}: isolation='process' needs a function at the top of an importable module"
        )
    try:
        hints = get_type_hints(fn, include_extras=True)
    except Exception as error:
        raise StepDeclarationError(f"step type {name}: its type hints can't be read: {error}") from error
    parameters = list(inspect.signature(fn).parameters.values())
    takes_context = bool(parameters) and (
        parameters[0].name == "ctx" or hints.get(parameters[0].name) is StepContext
    )
    reserved = parameters.pop(0).name if takes_context else ""
    bind, input_schema = _inputs(name, parameters, hints, reserved)
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
    name: str, parameters: list[inspect.Parameter], hints: dict[str, Any], reserved: str
) -> tuple[Callable[[Any], dict[str, Any]], dict[str, Any]]:
    fields: list[Any] = []
    adapters: dict[str, TypeAdapter[Any]] = {}
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
        if needs_pydantic(hint):
            adapters[parameter.name] = _adapter(name, f"input {parameter.name}", hint)
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
        schema = _input_schema(model, parameters, adapters, open_ended)
    except (TypeError, NameError) as error:
        raise StepDeclarationError(f"step type {name}: inputs: {error}") from error
    names = tuple(field[0] for field in fields)
    # What is converted to a scalar is new in any case; all else is copied.
    copied = open_ended or any(hints.get(key, Any) not in SCALARS for key in names)
    return _binder(model, names, adapters, reserved if open_ended else None, copied), schema


def _binder(
    model: Any,
    names: tuple[str, ...],
    adapters: dict[str, TypeAdapter[Any]],
    reserved: str | None,
    copied: bool,
) -> Callable[[Any], dict[str, Any]]:
    """``reserved`` is None where nothing but ``names`` is taken; else what the rest may not be called."""
    convert, copy, unset = msgspec.convert, msgspec.to_builtins, msgspec.UNSET

    def bind(inputs: Any) -> dict[str, Any]:
        if inputs is None:
            inputs = {}
        try:
            if copied:
                inputs = copy(inputs)
            values = convert(inputs, model, str_keys=True)
        except msgspec.ValidationError as error:
            raise _bad_input(str(error)) from None
        arguments = {}
        for key in names:
            value = getattr(values, key)
            if value is not unset:
                arguments[key] = value
        for key, adapter in adapters.items():
            if key in arguments:
                arguments[key] = _adapt(key, adapter, arguments[key])
        if reserved is not None:
            if reserved and reserved in inputs:
                raise _bad_input(f"an input can't be called {reserved!r} - at `$.{reserved}`")
            arguments |= {key: value for key, value in inputs.items() if key not in names}
        return arguments

    return bind


def _adapt(key: str, adapter: TypeAdapter[Any], value: Any) -> Any:
    try:
        return adapter.validate_python(value)
    except ValidationError as error:
        raise _bad_input(_first_of(error, key)) from None


def _first_of(error: ValidationError, *root: str) -> str:
    first = error.errors(include_url=False)[0]
    path = ".".join(str(part) for part in ("$", *root, *first["loc"]))
    return f"{first['msg']} - at `{path}`"


def _bad_input(complaint: str) -> StepFailed:
    return StepFailed(f"inputs: {complaint}", type="InvalidInput", retryable=False)


def _input_schema(
    model: Any, parameters: list[inspect.Parameter], adapters: dict[str, TypeAdapter[Any]], open_ended: bool
) -> dict[str, Any]:
    schema = _schema(model)
    properties = schema.get("properties", {})
    for key, adapter in adapters.items():
        # References are from the top of the whole schema, so what they name is moved there, under a
        # name that no other parameter's types have.
        properties[key] = _pydantic_schema(adapter, "validation", f"{key}.")
        inner = properties[key].pop("$defs", {})
        if inner:
            schema.setdefault("$defs", {}).update({f"{key}.{name}": value for name, value in inner.items()})
    for parameter in parameters:
        default = parameter.default
        if parameter.name in properties and isinstance(default, (str, int, float, bool)):
            properties[parameter.name] = {**properties[parameter.name], "default": default}
    if open_ended:
        schema["additionalProperties"] = True
    schema.pop("title", None)
    return schema


# -- pydantic --------------------------------------------------------------------------------


def _adapter(name: str, what: str, hint: Any) -> TypeAdapter[Any]:
    try:
        return TypeAdapter(hint)
    except Exception as error:
        raise StepDeclarationError(f"step type {name}: {what}: {error}") from error


def _pydantic_schema(
    adapter: TypeAdapter[Any], mode: typing.Literal["validation", "serialization"], prefix: str = ""
) -> dict[str, Any]:
    try:
        return adapter.json_schema(mode=mode, ref_template=f"#/$defs/{prefix}{{model}}")
    except Exception:  # valid for pydantic, but not to be told in JSON Schema: it may be anything
        return {}


# -- outputs ---------------------------------------------------------------------------------


def _output(name: str, hint: Any) -> tuple[Callable[[Any], Any], dict[str, Any]]:
    if hint is Any:
        return _dump_plain, {}
    if needs_pydantic(hint):
        adapter = _adapter(name, "output", hint)
        return _dump_pydantic(adapter), _pydantic_schema(adapter, "serialization")
    try:
        schema = _schema(hint)
    except TypeError:
        return _dump_plain, {}  # no type of data (an iterable, a protocol): what comes is taken
    return _dump_typed(hint), schema


def _dump_pydantic(adapter: TypeAdapter[Any]) -> Callable[[Any], Any]:
    def dump(value: Any) -> Any:
        try:
            return adapter.dump_python(adapter.validate_python(value), mode="json", by_alias=True)
        except ValidationError as error:
            raise _bad_output(_first_of(error)) from None
        except (ValueError, TypeError, RecursionError) as error:
            raise _bad_output(str(error)) from None

    return dump


def _dump_typed(hint: Any) -> Callable[[Any], Any]:
    convert = msgspec.convert
    kind = typing.get_origin(hint) if hint in OPEN else hint
    is_plain = kind in PLAIN

    def dump(value: Any) -> Any:
        if is_plain and type(value) is kind:
            return value
        plain = value if type(value) in SCALARS else _builtins(value)
        try:
            # Neither a dataclass nor a Struct checks its fields when it is made.
            convert(plain, hint, str_keys=True)
        except (msgspec.ValidationError, RecursionError) as error:
            raise _bad_output(str(error)) from None
        return plain

    return dump


def _dump_plain(value: Any) -> Any:
    """Builtins pass as they are (the engine's encoder finds what is wrong inside); the rest is converted."""
    return value if type(value) in PLAIN else _builtins(value)


def _builtins(value: Any) -> Any:
    try:
        if isinstance(value, BaseModel):
            return value.model_dump(mode="json", by_alias=True)
        return msgspec.to_builtins(value, str_keys=True)
    except (TypeError, ValueError, RecursionError) as error:
        raise _bad_output(str(error)) from None


def _bad_output(complaint: str) -> StepFailed:
    message = f"the step returned what it can't return: {complaint}"
    return StepFailed(message, type="InvalidOutput", retryable=False)


def _schema(hint: Any) -> dict[str, Any]:
    """The JSON Schema of a type, self-contained."""
    schema: dict[str, Any] = msgspec.json.schema(hint)
    reference = schema.get("$ref", "")
    if not reference.startswith("#/$defs/"):
        return schema
    definitions = schema["$defs"]
    top = definitions[reference.removeprefix("#/$defs/")]
    if f'"{reference}"'.encode() not in msgspec.json.encode(definitions):  # it is not recursive
        definitions = {key: value for key, value in definitions.items() if value is not top}
    return {**top, **({"$defs": definitions} if definitions else {})}
