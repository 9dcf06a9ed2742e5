"""Hints: what a misspelled word was probably meant to be."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

__all__ = ["near", "suggest"]

SHOWN_MAX = 8


def near(word: str, known: Iterable[str]) -> str | None:
    """The known word that ``word`` looks most like, if it looks like any."""
    found = get_close_matches(word, sorted(known), n=1, cutoff=0.6)
    return found[0] if found else None


def suggest(word: str, known: Iterable[str], more: str = "") -> str:
    """A hint: the nearest known word, or else the known words."""
    names = sorted(known)
    if (close := near(word, names)) is not None:
        return f"did you mean {close!r}?"
    if not names:
        return more
    shown = ", ".join(names[:SHOWN_MAX]) + (", ..." if len(names) > SHOWN_MAX else "")
    return f"known: {shown}" + (f"; {more}" if more else "")
