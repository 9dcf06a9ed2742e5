"""A flow as a program: its name, version, limits, inputs, and runs."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Coroutine
from typing import Any, Final

from wpa.errors import Problem
from wpa.flows.code import code_hash
from wpa.flows.guard import guard
from wpa.flows.inputs import Inputs
from wpa.flows.loop import Signatures
from wpa.flows.run import FlowRun
from wpa.kernel.program import ExecutionInfo

__all__ = ["FlowProgram"]

VERSION_CHARS: Final = 12


class FlowProgram:
    """See :class:`wpa.kernel.program.Program`. Made by :func:`wpa.flows.flow`; shared by all its runs.

    ``hash`` is that of the function's code, so two workers that hold the same code hold the same program;
    ``version`` is its first 12 digits unless the flow was given one. ``root`` is the package that the code
    belongs to, the first part of its module's name.
    """

    pinned: Final = False

    def __init__(
        self,
        id: str,
        fn: Callable[..., Coroutine[Any, Any, Any]],
        inputs: Inputs,
        *,
        version: str,
        timeout_ms: int | None,
        cleanup_ms: int,
        max_parallel: int,
    ) -> None:
        self.id = id
        self.fn = fn
        self.hash = code_hash(fn)
        self.version = version or self.hash[:VERSION_CHARS]
        self.timeout_ms = timeout_ms
        self.cleanup_ms = cleanup_ms
        self.max_parallel = max_parallel
        self.root = fn.__module__.partition(".")[0]
        self.signatures: Signatures | None = None
        self._inputs = inputs
        self._modules_guarded = 0

    def __repr__(self) -> str:
        return f"<flow {self.id} {self.version}>"

    def with_signatures(self, signatures: Signatures) -> FlowProgram:
        """The same flow, able to name the positional arguments of calls by name: see :func:`wpa.flows.call`.

        Args:
            signatures: finds a step type's signature. It has to know the same ones in each worker.
        """
        knowing = copy.copy(self)
        knowing.signatures = signatures
        return knowing

    def check_signal(self, name: str, payload: Any) -> list[Problem]:
        """Nothing is known against any signal: what a flow waits for, only running it can tell."""
        return []

    def check_input(self, data: Any) -> list[Problem]:
        return self._inputs.check(data)

    def begin(self, data: Any, variables: dict[str, Any], info: ExecutionInfo) -> FlowRun:
        """A new run over no slots. A flow has no ``variables``: they are ignored."""
        if self._modules_guarded != len(sys.modules):
            guard(self.fn)
            self._modules_guarded = len(sys.modules)
        return FlowRun(self, data, info)

    async def enter(self, data: Any) -> Any:
        """Run the flow's function on an input; only ever inside a run. Raises Misfit, a ValueError."""
        return await self.fn(**self._inputs.bind(data))
