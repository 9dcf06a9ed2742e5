"""NATS subjects and patterns of them, in which ``*`` is any one token and ``>`` one or more at the end."""

from __future__ import annotations

__all__ = ["covers", "matches", "overlap"]


def matches(pattern: str, subject: str) -> bool:
    """Whether ``subject``, which has no wildcards, is one of those that ``pattern`` names."""
    return covers(pattern, subject)


def covers(wide: str, pattern: str) -> bool:
    """Whether every subject that ``pattern`` names is one of those that ``wide`` names."""
    ours, theirs = wide.split("."), pattern.split(".")
    for place, mine in enumerate(ours):
        if place >= len(theirs):
            return False
        if mine == ">":
            return True
        if theirs[place] == ">" or mine not in ("*", theirs[place]):
            return False
    return len(ours) == len(theirs)


def overlap(one: str, other: str) -> bool:
    """Whether any subject is one of both patterns."""
    ours, theirs = one.split("."), other.split(".")
    for mine, yours in zip(ours, theirs, strict=False):
        if ">" in (mine, yours):
            return True
        if mine != yours and "*" not in (mine, yours):
            return False
    return len(ours) == len(theirs)
