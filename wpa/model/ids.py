"""Names that become subject tokens, and the keys made of them.

NATS clients accept nearly anything as a subject, wildcards and NUL included, so every token is
checked here, once, at the door. Nothing past the door builds a subject from an unchecked name.
"""

from __future__ import annotations

import re
from typing import Final

from wpa.errors import InvalidName

__all__ = [
    "DEFAULT_TENANT",
    "check_emit_subject",
    "check_execution",
    "check_queue",
    "check_signal",
    "check_step",
    "check_tenant",
    "check_token",
    "check_version",
    "check_workflow",
    "idempotency_key",
    "undo_slot",
]

DEFAULT_TENANT: Final = "default"
TENANT: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}", re.ASCII)
TOKEN: Final = re.compile(r"[^.*>\x00-\x20\x7f]{1,200}")
EXECUTION: Final = re.compile(r"[A-Za-z0-9_-]{1,128}", re.ASCII)
WORKFLOW: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", re.ASCII)
VERSION: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*(\.[A-Za-z0-9_-]+)*", re.ASCII)
VERSION_CHARS_MAX: Final = 32
EMIT: Final = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+){0,7}", re.ASCII)
EMIT_CHARS_MAX: Final = 200
QUEUE: Final = re.compile(r"[A-Za-z0-9_-]{1,32}", re.ASCII)
STEP: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,63}", re.ASCII)


def _check(what: str, value: object, pattern: re.Pattern[str], rule: str) -> str:
    if isinstance(value, str) and pattern.fullmatch(value):
        return value
    shown = ascii(value)
    if len(shown) > 80:
        shown = shown[:77] + "..."
    raise InvalidName(f"{what} {shown} is not a valid name: {rule}")


def check_tenant(value: object) -> str:
    """Return ``value`` if it can be a tenant; raise :class:`InvalidName` otherwise."""
    rule = "1 to 63 of a-z, 0-9, _ and -, the first a letter or digit"
    return _check("tenant", value, TENANT, rule)


def check_token(value: object) -> str:
    """Return ``value`` if it can be between two dots of a subject; raise :class:`InvalidName` otherwise.

    Anybody's tasks may be there, and become dead letters: of no tenant, where it can be none.
    """
    return _check("tenant", value, TOKEN, "1 to 200 characters; no dot, space, control character, * or >")


def check_execution(value: object) -> str:
    """Return ``value`` if it can be an execution id; raise :class:`InvalidName` otherwise."""
    return _check("execution id", value, EXECUTION, "1 to 128 of A-Z, a-z, 0-9, _ and -")


def check_workflow(value: object) -> str:
    """Return ``value`` if it can be a workflow id; raise :class:`InvalidName` otherwise."""
    rule = "1 to 64 of A-Z, a-z, 0-9, _ and -, the first a letter or digit"
    return _check("workflow id", value, WORKFLOW, rule)


def check_version(value: object) -> str:
    """Return ``value`` if it can be a version; raise :class:`InvalidName` otherwise."""
    rule = "1 to 32 of A-Z, a-z, 0-9, _ and -, with single dots between"
    fits = not isinstance(value, str) or len(value) <= VERSION_CHARS_MAX
    return _check("version", value if fits else ascii(value), VERSION, rule)


def check_step(value: object) -> str:
    """Return ``value`` if it can be a step id; raise :class:`InvalidName` otherwise."""
    rule = "1 to 64 of A-Z, a-z, 0-9, _ and -, the first a letter or _"
    return _check("step id", value, STEP, rule)


def check_signal(value: object) -> str:
    """Return ``value`` if it can be a signal's name; raise :class:`InvalidName` otherwise."""
    rule = "1 to 64 of A-Z, a-z, 0-9, _ and -, the first a letter or _"
    return _check("signal", value, STEP, rule)


def check_queue(value: object) -> str:
    """Return ``value`` if it can be a queue's name; raise :class:`InvalidName` otherwise."""
    return _check("queue", value, QUEUE, "1 to 32 of A-Z, a-z, 0-9, _ and -")


def check_emit_subject(value: object) -> str:
    """Return ``value`` if a step may emit on it, under its tenant's prefix; raise :class:`InvalidName`."""
    rule = "up to 8 tokens of A-Z, a-z, 0-9, _ and -, with single dots between, 200 characters in all"
    fits = not isinstance(value, str) or len(value) <= EMIT_CHARS_MAX
    return _check("subject", value if fits else ascii(value), EMIT, rule)


def undo_slot(slot: str) -> str:
    """The slot in which the work of ``slot`` is undone."""
    return f"{slot}:undo"


def idempotency_key(execution: str, slot: str) -> str:
    """``<execution>:<step>:<n>``: the same at every attempt of the same slot.

    A slot's id is its step's id, followed by ``:<n>`` from the second occurrence on.
    """
    step, _, rest = slot.partition(":")
    if not rest:
        return f"{execution}:{step}:1"
    if rest[0].isdigit():
        return f"{execution}:{step}:{rest}"
    return f"{execution}:{step}:1:{rest}"
