"""When snapshots are written, and how a slow worker's older one never replaces a newer."""

from __future__ import annotations

import asyncio
import logging

from wpa.engine.loading import Loaded, read_snapshot
from wpa.engine.services import Services
from wpa.errors import Conflict, TooLarge, Unavailable
from wpa.model.state import State, encode_state, pack

__all__ = ["Keeper"]

log = logging.getLogger("wpa.engine")

RETRY_S = 0.5
PACK_OVER_BYTES = 256 * 1024
GROWTH = 10
"""A busy execution is kept anew when its journal has grown by this share: a tenth."""


class Keeper:
    """Keeps one execution's snapshot. The journal is the truth: a missing snapshot costs only time."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._revision = 0
        self._kept_seq = 0
        self._kept_at = services.clock.monotonic_s()

    def adopt(self, loaded: Loaded) -> None:
        """Go on from a snapshot that was loaded."""
        self._revision = loaded.revision
        self._kept_seq = loaded.snapshot_seq

    def kept(self, state: State) -> bool:
        """Whether the snapshot that was loaded, or written since, is of this state."""
        return self._kept_seq >= state.seq

    def due(self, state: State) -> bool:
        """Whether a busy execution should be kept now: every so many events, or every second."""
        settings = self._services.settings
        # A large state is written more rarely, so that writing it stays a small share of all work.
        new = state.seq - self._kept_seq
        if new < self._kept_seq // GROWTH:
            return False
        if new >= settings.snapshot_every_events:
            return True
        return self._services.clock.monotonic_s() - self._kept_at >= settings.snapshot_every_s

    async def keep(self, state: State) -> None:
        """Try once. A server that can't take it now gets it the next time."""
        try:
            await self._put(state)
        except Unavailable as error:
            log.debug("snapshot of %s.%s: %s", state.tenant, state.execution, error)

    async def rest(self, state: State) -> None:
        """Write the snapshot of an execution at rest, however long that takes."""
        while state.seq > self._kept_seq:
            try:
                await self._put(state)
            except Unavailable:
                await asyncio.sleep(RETRY_S)

    async def _put(self, state: State) -> None:
        snapshots = self._services.ports.snapshots
        data = encode_state(state)
        if len(data) > PACK_OVER_BYTES:
            data = await asyncio.to_thread(pack, data)
        while True:
            try:
                self._revision = await snapshots.put(state.tenant, state.execution, data, self._revision)
                break
            except Conflict:
                found = await snapshots.get(state.tenant, state.execution)
                stored = read_snapshot(state.tenant, state.execution, found[0]) if found else None
                if stored is not None and stored.seq >= state.seq:
                    break  # a newer one, or this very one: its answer was lost
                self._revision = found[1] if found else 0
            except TooLarge as error:
                # Then every load folds the whole journal: slower, and as true.
                log.warning("%s.%s goes without a snapshot: %s", state.tenant, state.execution, error)
                break
        self._kept_seq = state.seq
        self._kept_at = self._services.clock.monotonic_s()
