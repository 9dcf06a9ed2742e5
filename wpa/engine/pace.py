"""How many executions are driven at a time: as many as are allowed, while the event loop keeps up.

What waits for a step costs the loop nothing, so there may be hundreds of those. What only works takes turns
on one loop, and each that is added makes the round longer, for all tenants, and nothing faster. So while
enough is under way to make a difference, it is looked at how long a round takes, and that decides whether
more may begin.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

__all__ = ["Pace"]

AT_LEAST: Final = 48
"""So many are driven at a time, however late the loop is: enough to keep the server and the disk busy."""
LOOK_EVERY_S: Final = 0.02
LONG_S: Final = 0.0015
SHORT_S: Final = 0.0007
WEIGHT: Final = 0.3
"""Of a round in the mean of the last: one may be long for many reasons."""
LESS: Final = 0.8
MORE: Final = 1.25


class Pace:
    """``room(n)``: whether another may begin, beside ``n`` that are driven.

    Args:
        at_most: how many may be driven at a time.
        worked_s: the CPU time of the loop's thread, in seconds.
        more: called when there may be room again.
    """

    def __init__(self, at_most: int, worked_s: Callable[[], float], more: Callable[[], None]) -> None:
        self._at_most = at_most
        self._worked_s = worked_s
        self._more = more
        self.limit = at_most
        """How many may be driven now."""
        self._round_s = 0.0
        self._driving = 0
        self._timer: asyncio.TimerHandle | None = None

    def room(self, driving: int) -> bool:
        """Whether there is room for one more."""
        self._driving = driving
        if driving < AT_LEAST:
            return driving < self._at_most
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(LOOK_EVERY_S, self._look)
        return driving < self.limit

    def close(self) -> None:
        """Look no more."""
        if self._timer is not None:
            self._timer.cancel()

    def took(self, round_s: float) -> None:
        """A round of the loop took so long: let fewer be driven, or more."""
        self._round_s += (round_s - self._round_s) * WEIGHT
        if self._round_s > LONG_S:
            self.limit = max(AT_LEAST, int(min(self.limit, self._driving) * LESS))
        elif self._round_s < SHORT_S:
            self.limit = min(self._at_most, int(self.limit * MORE))

    def _look(self) -> None:
        # What is called soon is called after all that is ready now. Counted is the loop's own work: where the
        # machine is busy with others, to begin less would only leave more of it to them.
        asyncio.get_running_loop().call_soon(self._after_a_round, self._worked_s())

    def _after_a_round(self, began: float) -> None:
        self._timer = None
        self.took(self._worked_s() - began)
        self._more()
