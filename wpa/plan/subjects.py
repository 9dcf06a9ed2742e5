"""NATS subjects that a definition may listen to, and streams that it may read."""

from __future__ import annotations

import re
from typing import Final

from wpa.model.subjects import is_inbox

__all__ = ["ENGINES", "check_stream", "check_subject", "reserved"]

SUBJECT_CHARS_MAX: Final = 255
STREAM_CHARS_MAX: Final = 255
ENGINES: Final = ("WPA_", "KV_", "OBJ_")
"""How the names of streams begin that the engine keeps, or the server's buckets."""
_TOKEN = re.compile(r"[^\s.*>\x00-\x20\x7f]+|\*|>")
_STREAM = re.compile(r"[^\s.*>/\\\x00-\x20\x7f]+")


def check_subject(pattern: str) -> None:
    """Raise ValueError, with what to write instead, for what is no subject that a trigger could listen to."""
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


def reserved(pattern: str) -> str:
    """Why no trigger may listen to a subject, and what to write instead; "" for one that may be listened to.

    The engine's own are refused: a workflow that listens to what it causes never comes to rest. So are
    NATS's own: on ``_INBOX.``, on what else an account calls its inboxes, and on the ``_R_.`` and ``_GR_.``
    that the server makes of them at the border of an account and of a cluster, everybody's answers go by.
    What steps emit (``workflow.emit.``) may be listened to.

    This is no matter of shape, and may come to refuse more: a definition that was deployed before must still
    load, for its executions go on. So it is asked when one is deployed, and again wherever one is in force.
    """
    first, *rest = pattern.split(".")
    if first == "workflow" and rest[:1] == ["emit"] and len(rest) > 1:
        return ""
    if first in ("workflow", "wpa") or first.startswith("$") or is_inbox(pattern):
        shown = ascii(pattern[:80])
        return f"{shown} belongs to the engine or the server; of these only 'workflow.emit.' may be used"
    return ""


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
