"""Between Python objects and plain JSON data: what a flow is given, and what it hands out.

Everything is copied on its way in and on its way out. What a flow does to its input changes nothing that
the journal holds, and what it does to an object after a call changes nothing of what was called for.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Callable
from typing import Any, Final

import msgspec
from pydantic import BaseModel, TypeAdapter, ValidationError

from wpa.flows.errors import NotDeterministic
from wpa.flows.standins import genuine_class
from wpa.model.hints import needs_pydantic
from wpa.model.recordable import encode_data, safe_text

__all__ = ["Convert", "Misfit", "Record", "converter", "dump", "dump_encoded", "is_object", "record"]

Convert = Callable[[Any], Any]

SCALARS: Final = frozenset({str, int, float, bool, type(None)})
ALWAYS_JSON: Final = frozenset({int, bool, type(None)})


class Record(dict[str, Any]):
    """A JSON object whose members can be read as attributes, too: ``charge.id`` is ``charge["id"]``.

    Equal to the dict with the same members. A member that is called like a method of dict (``items``,
    ``keys``, ``get`` ...) is reached by subscript only.
    """

    __slots__ = ()

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            known = ", ".join(sorted(self)) or "none"
            raise AttributeError(f"there is no {name!r} among the members: {known}") from None

    def __setattr__(self, name: str, value: Any) -> None:
        self[name] = value

    def __repr__(self) -> str:
        return f"Record({super().__repr__()})"


class Misfit(ValueError):
    """Data that does not fit a type. ``faults`` are (path below the value, what is wrong) pairs."""

    def __init__(self, faults: list[tuple[str, str]]) -> None:
        self.faults = faults
        super().__init__("; ".join(f"{message} - at `${path}`" for path, message in faults))


def record(value: Any) -> Any:
    """A deep copy of JSON data, its objects as :class:`Record`."""
    kind = type(value)
    if kind is dict or kind is Record:
        return Record([(key, record(member)) for key, member in value.items()])
    if kind is list or kind is tuple:
        return [record(item) for item in value]
    return value


def dump(value: Any) -> Any:
    """``value`` as plain JSON data, copied. Raises TypeError for what JSON can't hold: objects of other
    kinds, NaN, strings that are no Unicode, and what is nested deeper than any reader can follow."""
    return value if type(value) in ALWAYS_JSON else dump_encoded(value)[0]


def dump_encoded(value: Any) -> tuple[Any, bytes]:
    """As :func:`dump`, and how that is written as JSON."""
    try:
        plain = msgspec.to_builtins(value, str_keys=True, enc_hook=_dump_model)
        return plain, encode_data(plain)
    except TypeError:
        raise
    except Exception as error:  # ValueError, RecursionError, and whatever a model's own serializer raises
        raise TypeError(f"{type(value).__name__} can't be written as JSON: {error}") from error


def is_object(value: Any) -> bool:
    """Whether ``value`` is written as a JSON object."""
    return (
        isinstance(value, (dict, BaseModel, msgspec.Struct))
        or (dataclasses.is_dataclass(value) and not isinstance(value, type))
    ) and not getattr(getattr(value, "__struct_config__", None), "array_like", False)


def converter(hint: Any) -> Convert:
    """A function that makes JSON data what ``hint`` says; it raises :class:`Misfit` for what doesn't fit.

    Types that stand for no data (protocols, iterators) let everything pass, as :class:`Record` and lists.
    Raises TypeError for a pydantic type that pydantic refuses.
    """
    if hint is Any or hint is object:
        return record
    if needs_pydantic(hint):
        return _by_pydantic(hint)
    try:
        msgspec.json.schema(hint, schema_hook=_schema_of_stand_in)
    except TypeError:
        return record
    except NameError as error:
        raise TypeError(f"{hint}: {error}") from error
    return _by_msgspec(hint)


def _by_msgspec(hint: Any) -> Convert:
    convert = msgspec.convert
    is_scalar = hint in SCALARS if typing.get_origin(hint) is None else False

    def converted(value: Any) -> Any:
        if is_scalar and type(value) is hint:
            return value
        try:
            return convert(record(value), hint, str_keys=True, dec_hook=_convert_to_stand_in)
        except msgspec.ValidationError as error:
            message, _, path = str(error).partition(" - at `$")
            raise Misfit([(path.rstrip("`"), message)]) from None
        except NotDeterministic:
            raise
        except Exception as error:
            raise _unchecked(error) from error

    return converted


def _schema_of_stand_in(cls: type) -> dict[str, Any]:
    # A struct's hints, read when its module is guarded already, name a stand-in in place of datetime.
    if genuine_class(cls) is None:
        raise NotImplementedError
    return {"type": "string"}


def _convert_to_stand_in(cls: type, value: Any) -> Any:
    real = genuine_class(cls)
    if real is None:
        raise NotImplementedError
    return msgspec.convert(value, real)


def _by_pydantic(hint: Any) -> Convert:
    try:
        adapter = TypeAdapter(hint)
    except Exception as error:
        raise TypeError(str(error)) from error

    def converted(value: Any) -> Any:
        try:
            return adapter.validate_python(record(value))
        except ValidationError as error:
            faults = [(_path(fault["loc"]), fault["msg"]) for fault in error.errors(include_url=False)]
            raise Misfit(faults) from None
        except NotDeterministic:
            raise
        except Exception as error:
            raise _unchecked(error) from error

    return converted


def _unchecked(error: Exception) -> Misfit:
    """What a type's own check, or ``__post_init__``, raised in place of saying that data does not fit."""
    return Misfit([("", f"its check failed: {safe_text(type(error).__name__)}: {safe_text(error)}")])


def _path(location: tuple[int | str, ...]) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location)


def _dump_model(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json", by_alias=True)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    raise TypeError(f"{type(value).__name__} can't be written as JSON")
