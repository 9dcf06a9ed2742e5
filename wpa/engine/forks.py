"""Reruns: what one has taken over, no other takes over, too.

Done work that can be undone belongs to one execution. Of two reruns that go on from it, each would undo it,
under keys of their own, or one would go on from what the other has undone. The old execution's journal has
ended; so a record beside it says who has taken over. It is written before the new execution's first event.
"""

from __future__ import annotations

from typing import Final

import msgspec

from wpa.engine.loading import load_latest
from wpa.engine.services import Services
from wpa.errors import Conflict, TaskRejected

__all__ = ["check_free", "take", "taker"]

KIND: Final = "forks"
"""The kind of its records, one for each old execution."""
BEGINS_WITHIN_MS: Final = 60_000
"""Who is not there by then has not begun: its start was rejected after all."""


class _Taker(msgspec.Struct, frozen=True):
    execution: str
    at_ms: int


async def taker(services: Services, tenant: str, old: str) -> str:
    """The execution that has taken over what ``old`` had done; empty where none has. Raises Unavailable."""
    held, _ = await _find(services, tenant, old)
    return held


async def check_free(services: Services, tenant: str, old: str, new: str) -> None:
    """Raise TaskRejected (``taken_over``) where another than ``new`` has taken over; or Unavailable."""
    held = await taker(services, tenant, old)
    if held not in ("", new):
        raise _taken_over(old, held)


async def take(services: Services, tenant: str, old: str, new: str) -> None:
    """Record that ``new`` takes over what ``old`` had done. Idempotent. Raises as :func:`check_free`."""
    while True:
        held, revision = await _find(services, tenant, old)
        if held == new:
            return
        if held:
            raise _taken_over(old, held)
        record = msgspec.json.encode(_Taker(new, services.clock.now_ms()))
        try:
            await services.ports.records.put(tenant, KIND, old, record, revision)
            return
        except Conflict:
            continue


async def _find(services: Services, tenant: str, old: str) -> tuple[str, int]:
    """Who has taken over, and the record's revision."""
    found = await services.ports.records.get(tenant, KIND, old)
    if found is None:
        return "", 0
    record, revision = msgspec.json.decode(found[0], type=_Taker), found[1]
    if services.clock.now_ms() - record.at_ms < BEGINS_WITHIN_MS:
        return record.execution, revision
    begun = await load_latest(services.ports, services.clock, tenant, record.execution)
    return "" if begun is None else record.execution, revision


def _taken_over(old: str, held: str) -> TaskRejected:
    return TaskRejected(
        "taken_over",
        f"what execution {old} has done was taken over by {held}, which goes on from it, or undoes it: rerun "
        f"that one, `wpa rerun {held} --from STEP`, or {old} from its beginning",
    )
