"""Pydantic's complaints about a document, in the words of the definition language."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, get_args

from pydantic import BaseModel

from wpa.errors import Problem
from wpa.plan.suggest import suggest

__all__ = ["translate"]

TAGS = ("step", "decision")


def translate(error: Any, model: type[BaseModel], path: str = "$") -> Problem:
    """One complaint as a problem.

    Args:
        error: an item of ``ValidationError.errors()``.
        model: the model that the data was checked against.
        path: where in the document the data is.
    """
    location = list(error["loc"])
    parts = [part for position, part in enumerate(location) if not _is_tag(location, position)]
    path += "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts)
    code, last = error["type"], str(location[-1]) if location else ""
    if code == "extra_forbidden":
        known = _fields(_model_at(model, location[:-1]))
        return Problem(path, f"unknown field {last!r}", suggest(last, known) if known else "")
    if code == "missing":
        return Problem(path, f"{last!r} is missing")
    if code == "string_pattern_mismatch":
        dash = " and -" if "-]" in str(error["msg"]) else ""
        hint = f"use A-Z, a-z, 0-9, _{dash}" if dash else "use A-Z, a-z, 0-9 and _"
        return Problem(path, f"{str(error['input'])[:60]!r} is not a valid name", hint)
    if code == "model_type":
        return Problem(path, "must be a JSON object")
    message = str(error["msg"]).removeprefix("Value error, ").replace("Input should be", "must be")
    return Problem(path, message[:1].lower() + message[1:])


def _is_tag(location: list[Any], position: int) -> bool:
    """Pydantic says which of the two kinds of steps it took an item for, and where a dictionary's key
    itself is meant."""
    part = location[position]
    return part == "[key]" or (position == 2 and location[0] == "steps" and part in TAGS)


def _fields(model: type[BaseModel] | None) -> list[str]:
    return [] if model is None else [field.alias or name for name, field in model.model_fields.items()]


def _model_at(model: type[BaseModel], location: list[Any]) -> type[BaseModel] | None:
    """The model of the object at a location; None where there is no single one."""
    found: list[type[BaseModel]] = [model]
    for part in location:
        if part in TAGS and len(found) > 1:
            found = [each for each in found if each.__name__.lower() == part]
        elif not isinstance(part, int) and len(found) == 1:
            fields = {field.alias or name: field for name, field in found[0].model_fields.items()}
            if part in fields:
                found = list(_models(fields[part].annotation))
    return found[0] if len(found) == 1 else None


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    """The models that an annotation speaks of, however they are wrapped."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
        return
    for inner in get_args(annotation):
        yield from _models(inner)
