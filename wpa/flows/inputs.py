"""A flow's parameters: what its input must look like, and how it becomes arguments."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from typing import Any, Final, get_type_hints

from wpa.errors import Problem
from wpa.flows.errors import FlowDeclarationError
from wpa.flows.values import Convert, Misfit, converter, record

__all__ = ["Inputs"]

WHERE: Final = "$.payload.input_data"


class Inputs:
    """The members of the input object are the parameters of the function.

    Args:
        flow: the flow's name, for errors.
        fn: its function.
        names: what the type hints may refer to beside the function's module, as classes of a function.

    Raises FlowDeclarationError for parameters that can't be passed by name, or whose types are of no use.
    """

    def __init__(self, flow: str, fn: Callable[..., Any], names: dict[str, Any] | None = None) -> None:
        try:
            hints = get_type_hints(fn, localns=names, include_extras=True)
        except Exception as error:
            raise FlowDeclarationError(f"flow {flow}: its type hints can't be read: {error}") from error
        self._flow = flow
        self._converters: dict[str, Convert] = {}
        self._required: list[str] = []
        self._changeable: dict[str, Any] = {}
        """Defaults that a flow could change: each of its runs has to get its own."""
        self._open = False
        for parameter in inspect.signature(fn).parameters.values():
            if parameter.kind is inspect.Parameter.VAR_KEYWORD:
                self._open = True
                continue
            if parameter.kind in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.POSITIONAL_ONLY):
                raise FlowDeclarationError(
                    f"flow {flow}: parameter {parameter.name} can't be passed by name, and the members of "
                    "the input are passed by name"
                )
            try:
                self._converters[parameter.name] = converter(hints.get(parameter.name, Any))
            except TypeError as error:
                raise FlowDeclarationError(f"flow {flow}: parameter {parameter.name}: {error}") from error
            if parameter.default is inspect.Parameter.empty:
                self._required.append(parameter.name)
            elif isinstance(parameter.default, (list, dict, set)):
                self._changeable[parameter.name] = parameter.default

    def check(self, data: Any) -> list[Problem]:
        """Everything that is wrong with an input; empty where nothing is."""
        if data is None:
            data = {}
        if not isinstance(data, dict):
            hint = f"the flow {self._flow} takes an object with its parameters as members"
            return [Problem(WHERE, f"expected an object, got {type(data).__name__}", hint)]
        problems = [
            Problem(f"{WHERE}.{name}", "is missing", f"it is a required parameter of the flow {self._flow}")
            for name in self._required
            if name not in data
        ]
        for name, value in data.items():
            convert = self._converters.get(name)
            if convert is not None:
                try:
                    convert(value)
                except Misfit as error:
                    problems += [Problem(f"{WHERE}.{name}{path}", message) for path, message in error.faults]
            elif not self._open:
                known = ", ".join(self._converters) or "none"
                problems.append(
                    Problem(f"{WHERE}.{name}", "is not a parameter of the flow", f"it takes: {known}")
                )
        return problems

    def bind(self, data: Any) -> dict[str, Any]:
        """The arguments for an input. Raises Misfit with all that is wrong with it."""
        arguments = {}
        try:
            for name, value in (data or {}).items():
                convert = self._converters.get(name)
                if convert is not None:
                    arguments[name] = convert(value)
                elif self._open:
                    arguments[name] = record(value)
                else:
                    raise Misfit([(f".{name}", "is not a parameter")])
        except (Misfit, AttributeError):
            raise Misfit([(p.path.removeprefix("$"), p.message) for p in self.check(data)]) from None
        for name in self._required:
            if name not in arguments:
                raise Misfit([(f".payload.input_data.{name}", "is missing")])
        for name, default in self._changeable.items():
            if name not in arguments:
                arguments[name] = copy.deepcopy(default)
        return arguments
