"""How a flow ended: its coroutine's result or exception, as the kernel understands it."""

from __future__ import annotations

import asyncio
from typing import Any

from wpa.errors import StepFailed
from wpa.flows.sites import traceback_site
from wpa.flows.values import dump
from wpa.kernel.program import Continued, Failed, Finished
from wpa.model.events import Failure

__all__ = ["ContinueAsNew", "failure_of", "outcome_of"]


class ContinueAsNew(BaseException):
    """Leaves a flow to start it over. No Exception, so that ``except Exception`` lets it through."""

    def __init__(self, input: Any) -> None:
        super().__init__("continue as new")
        self.input = input


def outcome_of(main: asyncio.Task[Any], root: str, dropped: tuple[str, ...]) -> Finished | Failed | Continued:
    """What the flow's own task ended with. ``root`` is the package that the flow's code belongs to."""
    if main.cancelled():
        message = "the flow was cancelled from within: it let asyncio.CancelledError pass"
        return Failed(Failure(type="Cancelled", message=message, retryable=False), dropped)
    error = main.exception()
    if error is None:
        try:
            return Finished(dump(main.result()), dropped)
        except TypeError as unfit:
            message = f"the flow returned what it can't return: {unfit}"
            return Failed(Failure(type="InvalidOutput", message=message, retryable=False), dropped)
    if isinstance(error, ContinueAsNew):
        return Continued(error.input, dropped)
    return Failed(failure_of(error, root), dropped)


def failure_of(error: BaseException, root: str) -> Failure:
    """An exception as a failure. A group of one exception is that exception."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    details: dict[str, Any] = {}
    if isinstance(error, StepFailed):
        details |= error.details
    elif isinstance(error, BaseExceptionGroup):
        details["errors"] = [
            {"type": each.type, "message": each.message}
            for each in (failure_of(inner, root) for inner in error.exceptions)
        ]
    if site := traceback_site(error.__traceback__, root):
        details.setdefault("at", site)
    kind = error.type if isinstance(error, StepFailed) else type(error).__name__
    return Failure(type=kind, message=str(error), retryable=False, details=details)
