"""Triggers at work: what a NATS message does to the executions of a plan."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from wpa.errors import InvalidName, Problem
from wpa.model.ids import check_execution
from wpa.model.subjects import matches
from wpa.plan import starts
from wpa.plan.expressions import ExpressionError
from wpa.plan.templates import Template, compile_condition, compile_template

__all__ = ["Signal", "Start", "Trigger", "compile_trigger"]

NAMES: Final = ("message", "subject", "headers")


class Start(msgspec.Struct, frozen=True, kw_only=True):
    """Start an execution."""

    input: Any
    execution_id: str = ""
    """Empty: one is to be made."""
    idempotency_key: str = ""
    """Empty: every message counts."""


class Signal(msgspec.Struct, frozen=True, kw_only=True):
    """Send a signal to an execution."""

    name: str
    execution_id: str
    payload: Any
    id: str = ""
    """Empty: every message counts."""


class Trigger:
    """A trigger, compiled. Immutable."""

    __slots__ = ("_filter", "_path", "_templates", "beginning", "signal", "stream", "subject")

    def __init__(
        self, document: starts.Trigger, filter: Template | None, templates: dict[str, Template], path: str
    ) -> None:
        self.subject = document.subject
        """What to listen to; may hold wildcards."""
        self.stream = document.stream or ""
        """The stream that keeps the messages; empty for a trigger that hears them as they are published."""
        self.beginning = document.beginning or "new"
        """Where in the stream to begin: with what is ``new``, or with the ``first`` that it holds."""
        self.signal = document.signal.name if document.signal else ""
        """The name of the signal to send; empty for a trigger that starts executions."""
        self._filter = filter
        self._templates = templates
        self._path = path

    def match(self, subject: str, message: Any, headers: Mapping[str, str]) -> Start | Signal | None:
        """What a message does; None where the trigger leaves it alone.

        Args:
            subject: the one it was published on.
            message: its decoded JSON.
            headers: its headers.

        Raises ExpressionError where an expression fails on this message, or gives what can't be used.
        """
        if not matches(self.subject, subject):
            return None
        scope = {"message": message, "subject": subject, "headers": dict(headers)}
        if self._filter is not None:
            wanted = self._filter.render(scope)
            if type(wanted) is not bool:
                raise ExpressionError(
                    f"{self._path}.filter gives {wanted!r:.80}; a filter must be true or false"
                )
            if not wanted:
                return None
        if self.signal:
            execution = self._execution("correlation", scope)
            if not execution:
                raise ExpressionError(f"{self._path}.signal.correlation is empty; it must name an execution")
            payload = self._templates["payload"].render(scope)
            return Signal(
                name=self.signal, execution_id=execution, payload=payload, id=self._text("id", scope)
            )
        return Start(
            input=self._templates["input"].render(scope),
            execution_id=self._execution("execution_id", scope),
            idempotency_key=self._text("idempotency_key", scope),
        )

    def _text(self, field: str, scope: Mapping[str, Any]) -> str:
        template = self._templates.get(field)
        if template is None:
            return ""
        value = template.render(scope)
        if isinstance(value, str) or type(value) is int:
            return str(value)
        raise ExpressionError(f"{self._place(field)} gives {value!r:.80}; it must be text or a whole number")

    def _execution(self, field: str, scope: Mapping[str, Any]) -> str:
        text = self._text(field, scope)
        try:
            return check_execution(text) if text else ""
        except InvalidName as error:
            raise ExpressionError(f"{self._place(field)}: {error.message}") from None

    def _place(self, field: str) -> str:
        return f"{self._path}.{'signal' if self.signal else 'start'}.{field}"


def compile_trigger(document: starts.Trigger, path: str) -> tuple[Trigger, list[Problem]]:
    """The trigger, and all that is wrong with its expressions."""
    complaints: list[tuple[str, str]] = []
    filter = None
    if document.filter is not None:
        filter, found = compile_condition(document.filter, f"{path}.filter", NAMES)
        complaints += found
    effect = document.start or document.signal
    word = "start" if document.start else "signal"
    templates = {}
    for field, value in (effect.model_dump() if effect else {}).items():
        if field != "name" and not (value is None and field != "input" and field != "payload"):
            templates[field], found = compile_template(value, f"{path}.{word}.{field}", NAMES)
            complaints += found
    trigger = Trigger(document, filter, templates, path)
    return trigger, [Problem(where, what) for where, what in complaints]
