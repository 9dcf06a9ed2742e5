"""NATS subjects and patterns of them, in which ``*`` is any one token and ``>`` one or more at the end."""

from __future__ import annotations

__all__ = ["covers", "is_inbox", "matches", "may_be_answered", "overlap"]

_NEVER_IN_A_SUBJECT = frozenset("*>\x7f").union(map(chr, range(0x21)))


def is_inbox(pattern: str) -> bool:
    """Whether these are subjects on which answers are given, and nothing else.

    NATS's own all begin with an underscore: ``_INBOX.``, the ``_R_.`` and ``_GR_.`` that a server makes of it
    where an answer has to cross the border of an account or of a cluster. So do, by custom, those that users
    call their inboxes to keep them apart (``_INBOX_acme.``).
    """
    return pattern.startswith("_")


def may_be_answered(reply: str) -> bool:
    """Whether an answer may be published on the subject that an asker names: an inbox.

    Whoever asks names it, and the engine may publish where he may not. On any other subject, an answer would
    be his way to write into the engine's buckets, or to be taken for somebody else's message.
    """
    return is_inbox(reply) and not _NEVER_IN_A_SUBJECT.intersection(reply) and "" not in reply.split(".")


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
