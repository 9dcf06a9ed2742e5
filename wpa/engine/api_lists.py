"""The verbs that look over all executions of a tenant: list, approvals.

Both look back along the journal, from who was active last to who has done nothing for long, and pick. One
request looks at a thousand executions at most, so that nobody else waits for it; its answer says where the
next one goes on. Only who asks until there is no ``more`` has seen all.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, get_args

from wpa.engine.api_common import Body, Handler, text, whole
from wpa.engine.api_executions import execution_behind
from wpa.engine.loading import load
from wpa.engine.services import Services
from wpa.engine.status import open_approvals
from wpa.errors import TaskRejected
from wpa.kernel.fold import LEGAL
from wpa.kernel.waits import WAITING_FOR_SHOWN
from wpa.model import events as ev
from wpa.model.events import TERMINAL, Event
from wpa.model.state import Status
from wpa.ports.journal import Stored

__all__ = ["ListVerbs"]

LIST_MAX = 1_000
LOOK_MAX = 1_000
"""So many executions one request looks at to pick some."""
LOADS_AT_ONCE = 32
STATUSES: Final = get_args(Status)

_AFTER: Final[dict[str, set[str]]] = {
    name: {status for (_, event), status in LEGAL.items() if event == name} for _, name in LEGAL
}
"""The statuses that an event may lead to: nearly always one."""

Look = Callable[[Event], Awaitable[list[Body]]]
"""What an execution, given by its last event, contributes to the answer."""


class ListVerbs:
    """Shows which executions there are, and which of them wait for somebody."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def verbs(self) -> dict[str, Handler]:
        """What it answers, by verb."""
        return {"list": self.list_executions, "approvals": self.approvals}

    async def list_executions(self, tenant: str, body: Body) -> Body:
        limit = whole(body, "limit", 20, 1, LIST_MAX)
        statuses, workflow = _statuses(body), text(body, "workflow_id")

        def may_fit(event: Event) -> bool:
            return workflow in ("", event.workflow_id) and not statuses.isdisjoint(_may_be(event))

        async def look(event: Event) -> list[Body]:
            status = await self._status_after(event)
            return [_row(event, status)] if status in statuses else []

        picks = workflow or len(statuses) < len(STATUSES)
        most = LOOK_MAX if picks else limit
        rows, where = await self._look_back(tenant, body, limit, most, may_fit, look)
        return {"executions": rows, **where}

    async def _status_after(self, event: Event) -> str:
        """The status that an execution's last event has led to."""
        possible = _may_be(event)
        if len(possible) == 1:
            return next(iter(possible))
        loaded = await load(self._services.ports, event.tenant_id, event.execution_id)
        return loaded.state.status if loaded is not None else "RUNNING"

    async def approvals(self, tenant: str, body: Body) -> Body:
        """What waits for somebody, the oldest first."""
        limit = whole(body, "limit", 100, 1, LIST_MAX)
        rows, where = await self._look_back(tenant, body, limit, LOOK_MAX, _may_ask, self._open_approvals)
        return {"approvals": sorted(rows, key=lambda row: str(row["since"])), **where}

    async def _open_approvals(self, event: Event) -> list[Body]:
        loaded = await load(self._services.ports, event.tenant_id, event.execution_id)
        if loaded is None:
            return []
        state = loaded.state
        if not any(state.slots[slot_id].kind == "approval" for slot_id in state.open):
            return []
        execution, _ = await execution_behind(self._services, state)
        about = {
            "execution_id": state.execution,
            "workflow_id": state.workflow,
            "status": state.status,
        }
        return [{**about, **shown} for shown in open_approvals(state, execution)]

    # -- looking back ------------------------------------------------------------------------

    async def _look_back(
        self,
        tenant: str,
        body: Body,
        limit: int,
        most: int,
        may_fit: Callable[[Event], bool],
        look: Look,
    ) -> tuple[list[Body], Body]:
        """What executions contribute, who was active last first; and how far back that is.

        Args:
            limit: so many contributions are enough.
            most: so many executions are looked at for them.
            may_fit: whether an execution of this last event may contribute at all.
        """
        before = whole(body, "before", 0, 0, 1 << 53)
        met, following = await self._services.ports.journal.recent(tenant, most, before)
        fitting = [found for found in met if may_fit(found[1])]

        async def contribution(found: Stored) -> list[Body]:
            event = await self._last_of(found) if before else found[1]
            return await look(event) if may_fit(event) else []

        rows: list[Body] = []
        for begin in range(0, len(fitting), LOADS_AT_ONCE):
            some = fitting[begin : begin + LOADS_AT_ONCE]
            for (position, _), told in zip(some, await asyncio.gather(*map(contribution, some)), strict=True):
                rows += told
                if len(rows) >= limit:
                    is_last = position == met[-1][0]
                    return rows, _how_far(met, following if is_last else position)
        return rows, _how_far(met, following)

    async def _last_of(self, found: Stored) -> Event:
        """The last event of an execution that was met further back: it may have gone on since."""
        position, event = found
        journal = self._services.ports.journal
        last = await journal.latest(event.tenant_id, event.execution_id)
        if last <= position:
            return event
        stored = await journal.read(event.tenant_id, event.execution_id, last - 1, 1)
        return stored[0][1] if stored else event


def _how_far(met: list[Stored], following: int) -> Body:
    looked_at = sum(position >= following for position, _ in met)
    return {"more": following > 0, "next": following, "looked_at": looked_at}


def _statuses(body: Body) -> set[str]:
    """Those that are asked for: all where none is named."""
    named = {status.strip() for status in text(body, "status").upper().split(",")} - {""}
    for status in named.difference(STATUSES):
        raise TaskRejected("bad_request", f"$.status must be one of {', '.join(STATUSES)}, not {status!r}")
    return named or set(STATUSES)


def _may_be(event: Event) -> set[str]:
    if event.event == ev.WAITING:
        return {event.data.get("status", "WAITING")}
    return _AFTER[event.event]


def _may_ask(event: Event) -> bool:
    """Whether an approval may be open after an execution's last event."""
    if event.event in TERMINAL:
        return False
    if event.event != ev.WAITING:
        return True
    shown: list[Body] = event.data.get("waiting_for", [])
    # Not all are shown where there are many.
    return len(shown) >= WAITING_FOR_SHOWN or any(slot["kind"] == "approval" for slot in shown)


def _row(event: Event, status: str) -> Body:
    row: Body = {
        "execution_id": event.execution_id,
        "workflow_id": event.workflow_id,
        "status": status,
        "last_event": event.event,
        "timestamp": event.timestamp,
        "events": event.seq,
    }
    if event.event == ev.WAITING:
        row |= {name: event.data[name] for name in ("waiting_for", "until", "blocked") if name in event.data}
    return row
