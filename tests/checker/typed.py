"""JSON as dataclasses, with a clear word about what does not fit."""

from __future__ import annotations

from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from types import UnionType
from typing import Any, Literal, get_args, get_origin, get_type_hints

__all__ = ["read"]

PLAIN = {dict: "an object", list: "a list", str: "a string", int: "a whole number", bool: "true or false"}


def read(kind: Any, told: Any, where: str) -> Any:
    """``told``, JSON as it was read, as a ``kind``: a dataclass, or any type that its fields have.

    Raises ValueError, naming the place, which begins with ``where``, and what is wrong there.
    """
    origin, arguments = get_origin(kind) or kind, get_args(kind)
    if kind is Any:
        return told
    if is_dataclass(kind):
        return _object(kind, told, where)
    if origin is Literal:
        if told not in arguments:
            raise ValueError(f"{where} is none of {', '.join(arguments)}")
        return told
    if origin is UnionType:
        (inner,) = (argument for argument in arguments if argument is not type(None))
        return None if told is None else read(inner, told, where)
    _check(origin, told, where)
    if origin is list:
        return [read(arguments[0], item, f"{where}[{number}]") for number, item in enumerate(told)]
    if origin is dict:
        return {key: read(arguments[1], item, f"{where}.{key}") for key, item in told.items()}
    return told


def _object(kind: Any, told: Any, where: str) -> Any:
    _check(dict, told, where)
    types = _types(kind)
    if unknown := sorted(told.keys() - types.keys()):
        raise ValueError(f"{where} holds {', '.join(unknown)}, which nobody knows")
    needed = [one.name for one in fields(kind) if one.default is MISSING and one.default_factory is MISSING]
    if missing := [name for name in needed if name not in told]:
        raise ValueError(f"{where} lacks {', '.join(missing)}")
    return kind(**{name: read(types[name], value, f"{where}.{name}") for name, value in told.items()})


def _check(kind: type, told: Any, where: str) -> None:
    if not isinstance(told, kind) or (kind is int and isinstance(told, bool)):
        raise ValueError(f"{where} is not {PLAIN[kind]}")


@cache
def _types(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind)
