"""Waiting in tests for what is sure to come, for as long as a slow and busy machine may need.

Each helper returns as soon as it can: its patience takes time only where a test fails. A fixed sleep is only
right before the statement that something has *not* happened.
"""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

from wpa.errors import TaskRejected, Unavailable

__all__ = ["PATIENCE_S", "patiently", "until", "wait_for"]

T = TypeVar("T")

PATIENCE_S: Final = 30.0
LOOK_EVERY_S: Final = 0.02
ASK_EVERY_S: Final = 0.1


async def until(what: Callable[[], Any], within_s: float = PATIENCE_S) -> Any:
    """Look until ``what()``, or what it awaits, is true; its value.

    Raises TimeoutError, with what was seen last.
    """
    deadline = time.monotonic() + within_s
    while True:
        found = what()
        if inspect.isawaitable(found):
            found = await found
        if found:
            return found
        if time.monotonic() > deadline:
            raise TimeoutError(f"it did not happen within {within_s:g} s; last seen: {found!r}")
        await asyncio.sleep(LOOK_EVERY_S)


def wait_for(what: Callable[[], Any], within_s: float = PATIENCE_S) -> Any:
    """The same as :func:`until` outside an event loop."""
    deadline = time.monotonic() + within_s
    while not (found := what()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"it did not happen within {within_s:g} s; last seen: {found!r}")
        time.sleep(LOOK_EVERY_S)
    return found


async def patiently(ask: Callable[[], Awaitable[T]], within_s: float = PATIENCE_S) -> T:
    """Ask until somebody says yes: for a while, nobody may be there, or there may be nothing to do it to."""
    deadline = time.monotonic() + within_s
    while True:
        try:
            return await ask()
        except (TaskRejected, Unavailable):
            if time.monotonic() > deadline:
                raise
        await asyncio.sleep(ASK_EVERY_S)
