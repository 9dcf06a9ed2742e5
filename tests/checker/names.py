"""The names of the executions that others start: those that a plan does not give."""

from __future__ import annotations

import hashlib
import re
from typing import Final

__all__ = ["child_name", "next_child_name", "spelled_name"]

NAME_CHARS_MAX: Final = 128


def child_name(key: str, slot: str, attempt: int = 1) -> str:
    """The execution that an attempt at a slot starts, where the plan gives it no name."""
    step, *rest = slot.split(":")
    once = all(part.isdigit() or (part == "undo" and part is rest[-1]) for part in rest)
    plain = "-" not in step and step != "undo" and not re.fullmatch("retry[0-9]+", step)
    if once and plain and "." not in key:
        return spelled_name(key, slot, attempt)
    name = re.sub("[^A-Za-z0-9_-]", "-", _attempt(key, slot, attempt))
    mark = _digest(f"{key}:{slot}:{attempt}")
    return f"{name}-{mark[:8]}" if len(name) + 9 <= NAME_CHARS_MAX else f"{name[:100]}-{mark}"


def spelled_name(key: str, slot: str, attempt: int = 1) -> str:
    """The same, as it was at first; journals of that time hold such names, though two slots may have one."""
    asked = _attempt(key, slot, attempt)
    name = re.sub("[^A-Za-z0-9_-]", "-", asked)
    return name if len(name) <= NAME_CHARS_MAX else f"{name[:100]}-{_digest(asked)}"


def next_child_name(name: str, key: str, slot: str, attempt: int) -> str:
    """The name after ``name``, that of an attempt's child; where the plan gave it, it stays."""
    makers = (spelled_name, child_name)
    naming = {maker(key, slot, number): maker for number in range(1, attempt + 1) for maker in makers}.get(
        name
    )
    return naming(key, slot, attempt + 1) if naming else name


def _attempt(key: str, slot: str, attempt: int) -> str:
    return f"{key}:{slot}-retry{attempt}" if attempt > 1 else f"{key}:{slot}"


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=10).hexdigest()
