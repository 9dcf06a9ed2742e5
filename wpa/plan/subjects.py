"""NATS subjects that a definition may listen to, and streams that it may read."""

from __future__ import annotations

import re
from typing import Final

__all__ = ["ENGINES", "check_stream", "check_subject"]

SUBJECT_CHARS_MAX: Final = 255
STREAM_CHARS_MAX: Final = 255
ENGINES: Final = ("WPA_", "KV_", "OBJ_")
"""How the names of streams begin that the engine keeps, or the server's buckets."""
_TOKEN = re.compile(r"[^\s.*>\x00-\x20\x7f]+|\*|>")
_STREAM = re.compile(r"[^\s.*>/\\\x00-\x20\x7f]+")


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


def check_stream(name: str) -> None:
    """Raise ValueError, with what to write instead, for a stream that no trigger may read."""
    shown = ascii(name[:80])
    if len(name) > STREAM_CHARS_MAX or not name.isascii() or not _STREAM.fullmatch(name):
        raise ValueError(
            f"{shown} can't be the name of a stream; it has 1 to {STREAM_CHARS_MAX} visible ASCII "
            "characters, none of them one of . * > / \\"
        )
    if name.startswith(ENGINES):
        raise ValueError(
            f"{shown} is a stream of the engine's, or a bucket; name a stream of your own that captures "
            "the subject"
        )
