"""How a flow ended: its coroutine's result or exception, as the kernel understands it."""

from __future__ import annotations

import asyncio
from typing import Any, Final

from wpa.errors import StepFailed
from wpa.flows.sites import traceback_site
from wpa.flows.values import dump_encoded
from wpa.kernel.program import CANCELLED, Continued, Failed, Finished
from wpa.model.events import Failure
from wpa.model.recordable import TYPE_CHARS_MAX, check_integers, safe_details, safe_text

__all__ = ["ContinueAsNew", "alone", "failure_of", "kind_of", "outcome_of"]

GROUP_SHOWN: Final = 20
"""So many exceptions of a group are told in a failure's details."""


class ContinueAsNew(BaseException):
    """Leaves a flow to start it over. No Exception, so that ``except Exception`` lets it through."""

    def __init__(self, input: Any) -> None:
        super().__init__("continue as new")
        self.input = input


def outcome_of(
    main: asyncio.Task[Any], root: str, dropped: tuple[str, ...] = ()
) -> Finished | Failed | Continued:
    """What the flow's own task ended with. ``root`` is the package that the flow's code belongs to."""
    if main.cancelled():
        message = "the flow was cancelled from within: it let asyncio.CancelledError pass"
        return Failed(Failure(type=CANCELLED, message=message, retryable=False), dropped)
    error = main.exception()
    if error is None:
        try:
            output, encoded = dump_encoded(main.result())
            check_integers(encoded)
            return Finished(output, dropped)
        except (TypeError, ValueError) as unfit:
            message = f"the flow returned what it can't return: {unfit}"
            return Failed(Failure(type="InvalidOutput", message=message, retryable=False), dropped)
    left_with = alone(error)
    if isinstance(left_with, ContinueAsNew):
        return Continued(left_with.input, dropped)
    return Failed(failure_of(error, root), dropped)


def alone(error: BaseException) -> BaseException:
    """The exception that a group of one holds, as a ``TaskGroup`` makes them; any other as it is."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


def failure_of(error: BaseException, root: str) -> Failure:
    """An exception as a failure that can be recorded, whatever it holds. A group of one is its exception."""
    raised = error.__traceback__
    error = alone(error)
    details: dict[str, Any] = {}
    if isinstance(error, StepFailed):
        details = safe_details(getattr(error, "details", None))
    elif isinstance(error, BaseExceptionGroup):
        shown = map(alone, error.exceptions[:GROUP_SHOWN])
        details["errors"] = [{"type": kind_of(each), "message": safe_text(each)} for each in shown]
    if site := traceback_site(error.__traceback__, root) or traceback_site(raised, root):
        details.setdefault("at", site)
    return Failure(type=kind_of(error), message=safe_text(error), retryable=False, details=details)


def kind_of(error: BaseException) -> str:
    """The type of an exception, as it is recorded."""
    # By getattr: a subclass of StepFailed need not have called its __init__.
    own = getattr(error, "type", None) if isinstance(error, StepFailed) else None
    return safe_text(own or type(error).__name__, TYPE_CHARS_MAX)
