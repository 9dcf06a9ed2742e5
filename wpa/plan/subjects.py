"""NATS subjects that a definition may listen to."""

from __future__ import annotations

import re
from typing import Final

__all__ = ["check_subject", "matches"]

SUBJECT_CHARS_MAX: Final = 255
_TOKEN = re.compile(r"[^\s.*>\x00-\x20\x7f]+|\*|>")


def check_subject(pattern: str) -> None:
    """Raise ValueError, with what to write instead, for a subject that no trigger may listen to.

    The engine's own subjects are refused: a workflow that listens to what it causes never comes to rest.
    What steps emit (``workflow.emit.``) may be listened to.
    """
    shown = ascii(pattern[:80])
    tokens = pattern.split(".")
    if len(pattern) > SUBJECT_CHARS_MAX:
        raise ValueError(f"the subject has {len(pattern)} characters; the most is {SUBJECT_CHARS_MAX}")
    if not pattern.isascii() or not all(_TOKEN.fullmatch(token) for token in tokens) or ">" in tokens[:-1]:
        raise ValueError(
            f"{shown} is not a NATS subject; write tokens with single dots between, '*' for any one token, "
            "and '>' at the end for all that follow"
        )
    if tokens[0] in ("*", ">"):
        raise ValueError(f"{shown} would listen to the engine itself; write out the first token")
    if tokens[0] == "workflow" and tokens[1:2] == ["emit"] and len(tokens) > 2:
        return
    if tokens[0] in ("workflow", "wpa", "_INBOX") or tokens[0].startswith("$"):
        raise ValueError(
            f"{shown} belongs to the engine or the server; of these only 'workflow.emit.' may be used"
        )


def matches(pattern: str, subject: str) -> bool:
    """Whether ``subject``, which has no wildcards, is one of those that ``pattern`` names."""
    wanted, given = pattern.split("."), subject.split(".")
    if wanted[-1] == ">":
        wanted.pop()
        if len(given) <= len(wanted):
            return False
        given = given[: len(wanted)]
    return len(wanted) == len(given) and all(w in ("*", g) for w, g in zip(wanted, given, strict=True))
