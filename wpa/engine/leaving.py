"""Tasks that this worker has not the code for: each is handed back, for a worker that has.

Where such a worker is there, a task comes back soon: whoever gets it next may be the right one. Where none is
(a flow that was renamed, or whose plugin is installed nowhere), that would go on for ever, so a task rests
twice as long each time, up to ``REST_MAX_S``. It need not wait for the end of its rest: as long as any of
this worker's tasks rest so, the roster is looked at, and when a worker has come that was not there before,
which may have what is missing, all of them are handed out at once. So are they when this worker stops. (Of
one that is killed, they rest to the end.)
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any, Final, NamedTuple

from wpa.engine.crew import Crew
from wpa.errors import CodeDiffers, CodeMissing, FlowMissing, PlatformError, StepsMissing
from wpa.ports.clock import Clock
from wpa.ports.tasks import Lease

__all__ = ["LOOK_EVERY_S", "REST_MAX_S", "Leaving"]

log = logging.getLogger("wpa.worker")

LEAVE_S: Final = 0.2
"""How long a task rests that a worker who is there can take; longer each time, up to the next."""
LEAVE_MAX_S: Final = 1.0
REST_S: Final = 1.0
"""How long one rests that nobody can take; twice as long each time, up to the next."""
REST_MAX_S: Final = 30.0
LOOK_EVERY_S: Final = 2.0
"""How often the roster is looked at while anything rests, and how long it is believed."""
NEW_S: Final = 10.0
"""So long it is hoped that a worker that has come can go on with what this one's code can't."""
TOO_LATE_S: Final = 0.5
"""So shortly before the end of a rest nothing is handed out: another worker may have it already."""
KEPT_BYTES_MAX: Final = 16 * 1024 * 1024
"""Of tasks that can be handed out early; what rests besides waits for the end of its rest."""
LEASE_BYTES: Final = 1_024
"""About what a lease takes, besides its data."""
SAID_MAX: Final = 1_000
"""Of what the log was told: what is new beyond that, it is not told."""


class _Rest(NamedTuple):
    lease: Lease
    until_s: float
    """On the monotonic clock; from then on it may be another's."""


class Leaving:
    """What one worker leaves to others.

    Args:
        crew: this worker among the others.
        clock: the time.
    """

    def __init__(self, crew: Crew, clock: Clock) -> None:
        self._crew = crew
        self._clock = clock
        self._rests: list[_Rest] = []
        self._kept_bytes = 0
        self._others: dict[str, dict[str, Any]] = {}
        """What the other workers said of themselves when the roster was looked at last, by name."""
        self._looked_s = float("-inf")
        self._came_s = float("-inf")
        """When a worker was seen that had not been there before."""
        self._looking = asyncio.Lock()
        self._said: set[str] = set()
        """What the log was told since a worker came."""
        self._watching: asyncio.Task[None] | None = None

    async def leave(self, lease: Lease, name: str, error: CodeMissing) -> None:
        """Hand a task back, for as long as it had better rest. ``name`` is the execution's, for the log."""
        if await self._is_for_another(error):
            self._say(logging.INFO, "is left to another worker", name, error)
            lease.nak(min(LEAVE_MAX_S, LEAVE_S * lease.delivered))
            return
        self._say(logging.WARNING, "waits, for no worker can take it", name, error)
        rest_s = min(REST_MAX_S, REST_S * 2.0 ** min(lease.delivered - 1, 8))
        lease.nak(rest_s)
        size = len(lease.data) + LEASE_BYTES
        if self._crew.is_alone or rest_s <= LOOK_EVERY_S or self._kept_bytes + size > KEPT_BYTES_MAX:
            return
        self._kept_bytes += size
        self._rests.append(_Rest(lease, self._clock.monotonic_s() + rest_s))
        if self._watching is None or self._watching.done():
            self._watching = asyncio.create_task(self._watch(), name="wpa-leaving")

    def close(self) -> None:
        """Watch no more, and hand out what rests: who comes next may have the code for it. Idempotent."""
        if self._watching is not None:
            self._watching.cancel()
        self._hand_out()

    def _say(self, level: int, what: str, name: str, error: CodeMissing) -> None:
        """Say it once for all that lack the same; of the others, only to who listens closely."""
        said = f"{what}: {error}"
        if said in self._said or len(self._said) >= SAID_MAX:
            level = logging.DEBUG
        else:
            self._said.add(said)
        log.log(level, "%s %s (said once, however many do)", name, said)

    async def _is_for_another(self, error: CodeMissing) -> bool:
        """Whether a worker is there that can take it."""
        if isinstance(error, StepsMissing | CodeDiffers):
            return True
        await self._look()
        if isinstance(error, FlowMissing):
            return any(error.flow in about.get("flows", ()) for about in self._others.values())
        # Whether another's code for a flow would do, nobody knows before it has tried.
        return self._clock.monotonic_s() - self._came_s < NEW_S

    # -- who is there ------------------------------------------------------------------------

    async def _look(self) -> None:
        """Have a look at the roster that is not older than ``LOOK_EVERY_S``, if the server can be asked."""
        async with self._looking:
            if self._clock.monotonic_s() - self._looked_s < LOOK_EVERY_S:
                return
            try:
                others = await self._crew.others()
            except PlatformError as error:
                log.debug("can't look who is there: %s", error)
                return
            self._looked_s = self._clock.monotonic_s()
            came = others.keys() - self._others.keys()
            self._others = others
        if came:
            self._came_s = self._looked_s
            self._said.clear()
            self._hand_out()

    async def _watch(self) -> None:
        """Look out for workers that come, until nothing rests any more."""
        while self._rests:
            await self._clock.sleep(LOOK_EVERY_S)
            await self._look()
            now = self._clock.monotonic_s()
            self._rests = [rest for rest in self._rests if rest.until_s > now]
            self._kept_bytes = sum(len(rest.lease.data) + LEASE_BYTES for rest in self._rests)

    def _hand_out(self) -> None:
        """End every rest now, for whoever gets it then."""
        rests, self._rests, self._kept_bytes = self._rests, [], 0
        latest = self._clock.monotonic_s() + TOO_LATE_S
        for rest in rests:
            if rest.until_s > latest:
                rest.lease.nak()
