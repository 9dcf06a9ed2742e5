"""``@flow``: an ``async def`` becomes a durable workflow."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Coroutine
from typing import Any, Final, ParamSpec, TypeVar

from wpa.errors import InvalidName
from wpa.flows.calls import Duration, milliseconds
from wpa.flows.code import imports
from wpa.flows.errors import FlowDeclarationError
from wpa.flows.inputs import Inputs
from wpa.flows.program import FlowProgram
from wpa.flows.standins import GUARDED
from wpa.model.ids import check_version, check_workflow

__all__ = ["flow", "flow_of"]

CLEANUP_S: Final = 3_600.0
"""How long a flow may clean up unless it says something else: ten attempts at each of several undo steps."""

P = ParamSpec("P")
T = TypeVar("T")


def flow(
    name: str,
    *,
    version: str = "",
    timeout: Duration | None = None,
    cleanup_timeout: Duration = CLEANUP_S,
    max_parallel: int = 32,
) -> Callable[[Callable[P, Coroutine[Any, Any, T]]], Callable[P, Coroutine[object, object, T]]]:
    """Declare an ``async def`` a flow.

    Its parameters are the members of the input object, checked and converted by their type hints; what it
    returns, as JSON data, is the execution's output. An exception that leaves it fails the execution, and
    undoes what its calls were told to undo.

    Args:
        name: the workflow's id.
        version: its version; by default the first 12 digits of its code's hash.
        timeout: how long an execution may take in all, waiting included, in seconds; None: for ever.
        cleanup_timeout: how long it may go on, in seconds, after it was cancelled or its ``timeout`` is over:
            ``CancelledError`` is raised where it waits, and ``except`` and ``finally`` may call steps.
        max_parallel: how many of an execution's steps may run at a time.

    Returns the function itself, still awaitable, with its program as ``__wpa_flow__``.
    Raises FlowDeclarationError where the function can't be a flow.
    """
    try:
        check_workflow(name)
        if version:
            check_version(version)
    except InvalidName as error:
        raise FlowDeclarationError(f"flow {name!r}: {error.message}") from None
    if max_parallel < 1:
        raise FlowDeclarationError(f"flow {name}: max_parallel must be 1 or more, not {max_parallel}")
    try:
        timeout_ms = milliseconds("timeout", timeout)
        cleanup_ms = milliseconds("cleanup_timeout", cleanup_timeout) or 0
    except ValueError as error:
        raise FlowDeclarationError(f"flow {name}: {error}") from None

    def declare(fn: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, Coroutine[object, object, T]]:
        _check(name, fn)
        caller = sys._getframe(1)  # noqa: SLF001  hints may name what is local to it
        names = caller.f_locals if caller.f_locals is not caller.f_globals else None
        program = FlowProgram(
            name,
            fn,
            Inputs(name, fn, names),
            version=version,
            timeout_ms=timeout_ms,
            cleanup_ms=cleanup_ms,
            max_parallel=max_parallel,
        )
        fn.__wpa_flow__ = program  # type: ignore[attr-defined]
        return fn

    return declare


def flow_of(declared: object) -> FlowProgram | None:
    """The program behind what ``@flow`` returned, or None where it is none."""
    if isinstance(declared, FlowProgram):
        return declared
    found = getattr(declared, "__wpa_flow__", None)
    return found if isinstance(found, FlowProgram) else None


def _check(name: str, fn: Callable[..., Any]) -> None:
    if not inspect.iscoroutinefunction(fn) or not inspect.isfunction(fn):
        raise FlowDeclarationError(
            f"flow {name}: {getattr(fn, '__qualname__', fn)!r} is not an 'async def' function"
        )
    for line, module in imports(fn.__code__):
        if module.partition(".")[0] in GUARDED:
            raise FlowDeclarationError(
                f"flow {name}: {fn.__module__}:{line} imports {module} inside the function, where it can't "
                "be given recorded values; import it at the top of the module"
            )
