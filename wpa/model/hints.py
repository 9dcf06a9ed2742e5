"""Type hints: who understands them."""

from __future__ import annotations

import dataclasses
import typing
from typing import Any, Final

from pydantic import BaseModel

__all__ = ["needs_pydantic"]

PYDANTIC: Final = ("pydantic", "annotated_types")
"""Packages whose constraints, as in ``Annotated[int, Field(gt=0)]``, pydantic alone understands."""


def needs_pydantic(hint: Any, within: tuple[Any, ...] = ()) -> bool:
    """Whether a type is pydantic's, or holds one that is; msgspec, which is faster, does all others."""
    if isinstance(hint, type):
        if issubclass(hint, BaseModel) or hasattr(hint, "__pydantic_validator__"):
            return True
        if hint in within or not (dataclasses.is_dataclass(hint) or typing.is_typeddict(hint)):
            return any(needs_pydantic(part, within) for part in typing.get_args(hint))
        fields = typing.get_type_hints(hint, include_extras=True).values()
        return any(needs_pydantic(part, (*within, hint)) for part in fields)
    if type(hint).__module__.partition(".")[0] in PYDANTIC:
        return True
    return any(needs_pydantic(part, within) for part in typing.get_args(hint))
