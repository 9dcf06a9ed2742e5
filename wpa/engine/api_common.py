"""What the verbs share: how a request is read, and the type of what answers it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from wpa.errors import TaskRejected
from wpa.model.ids import check_execution, check_workflow

__all__ = ["Body", "Handler", "execution_of", "flag", "new_execution_of", "text", "whole", "workflow_of"]

Body = dict[str, Any]
Handler = Callable[[str, Body], Awaitable[Body]]
"""(tenant, request) -> reply, without its ``ok``. Raises TaskRejected for a request that can't be met."""


def whole(body: Body, name: str, default: int, least: int, most: int) -> int:
    """A whole number from ``least`` to ``most``. Raises TaskRejected (``bad_request``)."""
    value = body.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise TaskRejected("bad_request", f"$.{name} must be a whole number from {least} to {most}")
    return value


def text(body: Body, name: str, meaning: str = "") -> str:
    """A string; one with a ``meaning`` may not be missing. Raises TaskRejected (``bad_request``)."""
    value = body.get(name)
    if value is None or value == "":
        if meaning:
            raise TaskRejected("bad_request", f"$.{name} is missing: {meaning}")
        return ""
    if not isinstance(value, str):
        raise TaskRejected("bad_request", f"$.{name} must be a string, not {_kind(value)}")
    return value


def execution_of(body: Body) -> str:
    """The execution that is meant. Raises TaskRejected (``bad_request``, or ``invalid_name``)."""
    return check_execution(text(body, "execution_id", "name the execution"))


def new_execution_of(body: Body) -> str:
    """What a new execution is to be called; empty where that is left open. Raises as :func:`execution_of`."""
    name = text(body, "new_execution_id")
    return check_execution(name) if name else ""


def workflow_of(body: Body) -> str:
    """The workflow that is meant. Raises TaskRejected (``bad_request``, or ``invalid_name``)."""
    return check_workflow(text(body, "workflow_id", "name the workflow"))


def flag(body: Body, name: str, meaning: str) -> bool:
    """True or false, which must be there. Raises TaskRejected (``bad_request``)."""
    value = body.get(name)
    if not isinstance(value, bool):
        found = f", not {_kind(value)}" if name in body else ""
        raise TaskRejected("bad_request", f"$.{name} must be true or false{found}: {meaning}")
    return value


def _kind(value: object) -> str:
    """What a value is, in the words of JSON."""
    names = {bool: "a boolean", int: "a number", float: "a number", str: "a string", list: "an array"}
    return "null" if value is None else names.get(type(value), "an object")
