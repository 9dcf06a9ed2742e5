"""What would be said again and again is said now and then."""

from __future__ import annotations

import asyncio
from typing import Final

__all__ = ["Seldom"]

TELL_EVERY_S: Final = 60.0


class Seldom:
    """Whether something is to be said: once in ``TELL_EVERY_S``, each thing for itself."""

    def __init__(self) -> None:
        self._said: dict[str, float] = {}
        """What was said, and when: seconds of the event loop's clock."""

    def is_due(self, what: str = "") -> bool:
        """Whether ``what`` is to be said now; it counts as said then."""
        now = asyncio.get_running_loop().time()
        if now < self._said.get(what, -TELL_EVERY_S) + TELL_EVERY_S:
            return False
        self._said[what] = now
        return True
