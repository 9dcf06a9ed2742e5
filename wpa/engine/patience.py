"""Effects are not given up: a server that is away is waited out."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from wpa.errors import Unavailable

__all__ = ["until_done"]

log = logging.getLogger("wpa.engine")

RETRY_S: Final = 0.25
RETRY_MAX_S: Final = 5.0

T = TypeVar("T")


async def until_done(effect: Callable[[], Awaitable[T]]) -> T:
    """What ``effect`` returns, tried again as long as it raises Unavailable. Cancellable.

    Raises whatever else it raises.
    """
    delay = RETRY_S
    while True:
        try:
            return await effect()
        except Unavailable as error:
            log.debug("an effect is tried again: %s", error)
        await asyncio.sleep(delay)
        delay = min(delay * 2, RETRY_MAX_S)
