"""The signals of a plan: those it declares, and those its steps wait for."""

from __future__ import annotations

from typing import Any

from wpa.errors import Problem
from wpa.plan.documents import Document, Step
from wpa.plan.suggest import near, suggest
from wpa.plan.templates import has_expression
from wpa.plan.validators import check_schema, misfits, validator

__all__ = ["Signals"]


class Signals:
    """What can be signalled to the executions of a plan."""

    def __init__(self, document: Document) -> None:
        self._document = document
        self._declared = {name: signal.payload for name, signal in document.signals.items()}
        self._validators = {name: validator(schema) for name, schema in self._declared.items()}
        waits = [
            (index, item.inputs.get("signal"))
            for index, item in enumerate(document.steps)
            if isinstance(item, Step) and item.uses == "core.wait"
        ]
        self._constant = [
            (index, name) for index, name in waits if isinstance(name, str) and not has_expression(name)
        ]
        self._any = any(has_expression(name) for _, name in waits)
        """Whether a step computes the name: then every name may be waited for."""
        self.names = frozenset([*self._declared, *(name for _, name in self._constant)])

    def check(self, name: str, payload: Any) -> list[Problem]:
        """Why a signal is of no use to any execution: nobody waits for it, or its payload doesn't fit."""
        unknown = self.unknown(name, "$.payload.name")
        if unknown is not None:
            return [unknown]
        return misfits(self._validators.get(name), payload, "$.payload.payload")

    def unknown(self, name: str, path: str) -> Problem | None:
        """The complaint that nobody waits for a signal of this name, if nobody does."""
        if self._any or name in self.names:
            return None
        return Problem(
            path,
            f"workflow {self._document.id!r} knows no signal {name!r}",
            suggest(name, self.names, "" if self.names else "it waits for none"),
        )

    def problems(self) -> list[Problem]:
        """What is wrong with the declarations, and with names that look misspelled beside them."""
        found = []
        for name, schema in self._declared.items():
            found += check_schema(schema, f"$.signals.{name}.schema")
        for index, name in self._constant:
            meant = None if name in self._declared else near(name, self._declared)
            if meant is not None:
                path = f"$.steps[{index}].with.signal"
                message = f"there is no signal {name!r} in $.signals"
                found.append(Problem(path, message, f"did you mean {meant!r}? else declare it"))
        return found
